"""The guide of LiDAR: worked examples, limits, symmetries, and convergence to the exact tilted score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle
from diffusion.processes.gaussian import to_clean
from diffusion.sampling.gaussian import lidar, solvers
from diffusion.sampling.gaussian.lidar import Lookahead, lookahead_guide
from diffusion.sampling.gaussian.sampler import guided, sample_gaussian
from diffusion.schedules.gaussian import ScaledLinear
from tests.weights import keys_of

# Samples, rewards, x, alpha, sigma^2; weights without rewards; weights, R and gradient by strength.
EXAMPLES = {
    "one dimension": (
        ([[-1.0], [1.0]], [0.0, 1.0], [0.2], 0.8, 0.36),
        [0.291339175, 0.708660825],
        {
            1.0: ([0.1313712095, 0.8686287905], 0.7964611617, [0.7109687353]),
            5000.0: ([0.0, 1.0], 4999.6556217481, [1.2948407776]),
        },
    ),
    "two dimensions": (
        ([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], [0.5, -0.2, 0.1], [0.3, -0.1], 0.6, 0.64),
        [0.463036742, 0.3182401884, 0.2187230696],
        {
            1.0: ([0.6031601279, 0.2058571977, 0.1909826743], 0.2356236936, [0.1573722949, -0.0793524332]),
            10.0: ([0.9908068758, 0.0006209651, 0.0085721591], 4.23928677, [0.691800979, -0.1007515433]),
        },
    ),
}
MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)
LINEAR = oracle.Linear(jnp.ones(1))


def example(name):
    """Return lookahead samples, a point (x, alpha, sigma), and the expected weights."""
    (samples, rewards, x, alpha, variance), *rest = EXAMPLES[name]
    return Lookahead(jnp.array(samples), jnp.array(rewards)), (jnp.array([x]), alpha, variance**0.5), *rest


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name):
    ahead, point, plain, strengths = example(name)
    _, alpha, sigma = point
    for strength, (tilted, value, slope) in strengths.items():
        with_reward, without = lidar.particle_weights(ahead, strength, *point)
        np.testing.assert_allclose(without[0], plain, atol=1e-6)
        np.testing.assert_allclose(with_reward[0], tilted, atol=1e-6)
        assert float(lidar.future_reward(ahead, strength, *point)[0]) == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(alpha / sigma**2 * lidar.shift(ahead, strength, *point)[0], slope, atol=2e-6)


def test_the_guide_is_the_gradient_of_the_future_reward():
    ahead, (x, alpha, sigma), *_ = example("two dimensions")
    slope = jax.grad(lambda x: jnp.sum(lidar.future_reward(ahead, 3.0, x, alpha, sigma)))(x)
    moved = lidar.shift(ahead, 3.0, x, alpha, sigma)
    np.testing.assert_allclose(alpha / sigma**2 * moved, slope, atol=1e-5)


def test_symmetries():
    ahead, (x, *levels), *_ = example("two dimensions")
    samples, rewards = ahead
    base = lidar.shift(ahead, 3.0, x, *levels)
    order, offset = jnp.array([2, 0, 1]), jnp.array([[0.7, -0.3]])
    for changed, point in (
        (Lookahead(samples[order], rewards[order]), x),
        (Lookahead(samples, rewards + 5), x),
        (Lookahead(jnp.tile(samples, (2, 1)), jnp.tile(rewards, 2)), x),
        (Lookahead(samples + offset, rewards), x + levels[0] * offset),
    ):
        np.testing.assert_allclose(lidar.shift(changed, 3.0, point, *levels), base, atol=3e-6)
    with_reward, without = lidar.particle_weights(ahead, 3.0, x, *levels)
    variation = 0.5 * jnp.sum(jnp.abs(with_reward - without))
    diameter = jnp.max(jnp.linalg.norm(samples[:, None] - samples[None], axis=-1))
    assert float(jnp.linalg.norm(base)) <= float(variation * diameter) + 1e-6


def exact(x, row, carry):
    return oracle.clean(MIXTURE, x, row.alpha, row.sigma), carry


GRID = solvers.gaussian_grid(solvers.leading(ScaledLinear(), 10), solvers.ddim(1.0))


@pytest.mark.parametrize("case", ["one sample", "equal rewards", "no strength", "no scale"])
def test_guide_without_information_does_not_change_samples(case):
    """With two prompts of three images each; bitwise in the cases where compilers cannot fuse the two means."""
    count = 1 if case == "one sample" else 4
    samples = jax.random.normal(jax.random.key(0), (2, count, 1))
    rewards = jnp.ones((2, count)) if case == "equal rewards" else jax.random.normal(jax.random.key(1), (2, count))
    strength, scale = 0.0 if case == "no strength" else 50.0, 0.0 if case == "no scale" else 12.5
    guide = lookahead_guide(Lookahead(samples, rewards), strength, scale)
    plain = sample_gaussian(exact, keys_of(6), (1,), GRID)[0]
    result = sample_gaussian(guided(exact, (guide,)), keys_of(6), (1,), GRID)[0]
    if case in ("one sample", "no scale"):
        np.testing.assert_array_equal(result, plain)
    np.testing.assert_allclose(result, plain, atol=2e-6)
    pushing = lookahead_guide(Lookahead(jnp.array([[[-1.0], [1.0]]] * 2), jnp.array([[0.0, 1.0]] * 2)), 5.0, 1.0)
    assert not np.array_equal(sample_gaussian(guided(exact, (pushing,)), keys_of(6), (1,), GRID)[0], plain)


LOOKAHEAD = Lookahead(jnp.array([[[-2.0], [2.0], [0.5]]]), jnp.array([[0.0, 1.0, 0.2]]))


def test_particles_are_independent():
    predict = guided(exact, (lookahead_guide(LOOKAHEAD, 5.0, 2.0),))
    together = sample_gaussian(predict, keys_of(4), (1,), GRID)[0]
    alone = [sample_gaussian(predict, keys_of(4)[index : index + 1], (1,), GRID)[0] for index in range(4)]
    np.testing.assert_allclose(together, jnp.concatenate(alone), atol=2e-5)


def test_each_prompt_is_guided_by_its_own_samples():
    two = Lookahead(*(jnp.concatenate([array, -array]) for array in LOOKAHEAD))
    both = sample_gaussian(guided(exact, (lookahead_guide(two, 5.0, 2.0),)), keys_of(4), (1,), GRID)[0]
    first = sample_gaussian(guided(exact, (lookahead_guide(LOOKAHEAD, 5.0, 2.0),)), keys_of(2), (1,), GRID)[0]
    np.testing.assert_allclose(both[:2], first, atol=5e-5)


def test_guide_acts_in_its_window_only():
    """Outside of the window a guided prediction equals an unguided one, and inside it does not."""
    path = solvers.leading(ScaledLinear(), 10)
    grid = solvers.gaussian_grid(path, solvers.ddim(0.0), solvers.mask_until(path, 0.201))
    assert int(grid.guided.sum()) == 8
    predict = guided(exact, (lookahead_guide(LOOKAHEAD, 5.0, 2.0),))
    x = jnp.array([[0.3]])
    for step in range(10):
        row = jax.tree.map(lambda column, step=step: column[step], grid)
        same = np.array_equal(predict(x, row, None)[0], exact(x, row, None)[0])
        assert same != bool(row.guided)


@pytest.mark.parametrize("kind", ["epsilon", "velocity"])
def test_guide_agrees_with_the_published_corrections(kind):
    """These are epsilon - s (alpha / sigma) M, and v - (s / sigma) M."""
    x, clean, scale = jnp.array([[0.4]]), jnp.array([[0.1]]), 3.0
    alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
    moved = lidar.shift(jax.tree.map(lambda leaf: leaf[0], LOOKAHEAD), 5.0, x, alpha, sigma)
    noise = (x - alpha * clean) / sigma
    prediction = noise if kind == "epsilon" else alpha * noise - sigma * clean
    correction = scale * (alpha / sigma if kind == "epsilon" else 1 / sigma) * moved
    result = to_clean(kind, prediction - correction, x, alpha, sigma)
    np.testing.assert_allclose(result, clean + scale * moved, rtol=1e-5)


def test_the_guide_converges_to_the_exact_tilted_score():
    """Root mean square errors fall as n^(-1/2), with the constants of the delta method."""
    points, alpha, sigma, repeats = jnp.array([[-1.5], [0.0], [1.5]]), 0.8, 0.6, 600
    value = oracle.future_reward(MIXTURE, LINEAR, 1.0, points, alpha, sigma)
    slope = jax.grad(lambda x: jnp.sum(oracle.future_reward(MIXTURE, LINEAR, 1.0, x, alpha, sigma)))(points)

    def errors(key, count):
        samples = oracle.draw(key, MIXTURE, count)
        ahead = Lookahead(samples, LINEAR(samples))
        result = lidar.shift(ahead, 1.0, points, alpha, sigma) * alpha / sigma**2
        return lidar.future_reward(ahead, 1.0, points, alpha, sigma) - value, result - slope

    counts, errors_by_count = (100, 1000, 10_000), []
    for count in counts:
        keys = jax.random.split(jax.random.key(count), repeats)
        wrong, steep = jax.lax.map(lambda key, count=count: errors(key, count), keys)
        errors_by_count.append([jnp.sqrt(jnp.mean(part.reshape(repeats, 3) ** 2, axis=0)) for part in (wrong, steep)])
    errors_by_count = np.array(errors_by_count)
    for part, constants in ((0, (0.5425, 0.6078, 0.9681)), (1, (0.985, 1.410, 1.570))):
        np.testing.assert_allclose(errors_by_count[-1, part] * 100, constants, rtol=0.1)
        slopes = np.polyfit(np.log(counts), np.log(errors_by_count[:, part]), 1)[0]
        assert np.all((slopes > -0.56) & (slopes < -0.44)), slopes


def test_guided_sampling_reaches_the_tilted_distribution():
    """The exact tilted mean is 1.845, and the base mean -0.45; DDPM with 256 lookahead samples."""
    grid = solvers.gaussian_grid(solvers.leading(ScaledLinear(), 100), solvers.ddim(1.0))
    tilted, _ = oracle.tilted(MIXTURE, LINEAR, 1.0)
    assert float(jnp.sum(jnp.exp(tilted.log_weights) * tilted.means[:, 0])) == pytest.approx(1.8452423972, abs=1e-5)
    samples = oracle.draw(jax.random.key(3), MIXTURE, 8 * 256).reshape(8, 256, 1)
    lookahead = Lookahead(samples, samples[..., 0])
    predict = guided(exact, (lookahead_guide(lookahead, 1.0, 1.0),))
    result = jax.jit(lambda keys: sample_gaussian(predict, keys, (1,), grid)[0])(keys_of(8000))
    assert float(result.mean()) == pytest.approx(1.82, abs=0.12)
    plain = jax.jit(lambda keys: sample_gaussian(exact, keys, (1,), grid)[0])(keys_of(8000))
    assert float(plain.mean()) == pytest.approx(-0.44, abs=0.08)
