"""The guide of LiDAR: worked examples, limits, symmetries, and convergence to the exact tilted score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle
from diffusion.sampling.gaussian import lidar, solvers
from diffusion.sampling.gaussian.lidar import Lookahead, lookahead_guide
from diffusion.sampling.gaussian.sampler import guided, sample_gaussian
from diffusion.schedules.gaussian import ScaledLinear
from tests.checks import optimized
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
shift = optimized(lidar.shift)


def example(name):
    """Return lookahead samples, a point (x, alpha, sigma), and the expected weights."""
    (samples, rewards, x, alpha, variance), *rest = EXAMPLES[name]
    return Lookahead(jnp.array(samples), jnp.array(rewards)), (jnp.array([x]), alpha, variance**0.5), *rest


@pytest.mark.parametrize("name", EXAMPLES)
def test_worked_examples(name):
    """The shift is the gradient of the future reward, times sigma^2 / alpha."""
    ahead, point, plain, strengths = example(name)
    _, alpha, sigma = point
    weights, value_and_slope = (
        optimized(function) for function in (lidar.particle_weights, jax.value_and_grad(first_reward, argnums=2))
    )
    for strength, (tilted, value, slope) in strengths.items():
        with_reward, without = weights(ahead, strength, *point)
        np.testing.assert_allclose(without[0], plain, atol=1e-6)
        np.testing.assert_allclose(with_reward[0], tilted, atol=1e-6)
        np.testing.assert_allclose(alpha / sigma**2 * shift(ahead, strength, *point)[0], slope, atol=2e-6)
        future, gradient = value_and_slope(ahead, strength, *point)
        assert float(future) == pytest.approx(value, rel=1e-5)
        np.testing.assert_allclose(gradient[0], slope, atol=1e-5)


def first_reward(*inputs):
    return lidar.future_reward(*inputs)[0]


def exact(x, row, carry):
    return oracle.clean(MIXTURE, x, row.alpha, row.sigma), carry


PATH = solvers.leading(ScaledLinear(), 100)
GRID = solvers.gaussian_grid(PATH, solvers.ddim(1.0))
# Two prompts with three lookahead samples each.
LOOKAHEAD = Lookahead(jnp.array([[[-2.0], [2.0], [0.5]]] * 2), jnp.array([[0.0, 1.0, 0.2]] * 2))


@optimized
def plain(keys):
    return sample_gaussian(exact, keys, (1,), GRID)[0]


@optimized
def sample(keys, lookahead=LOOKAHEAD, strength=5.0, scale=2.0):
    return sample_gaussian(guided(exact, (lookahead_guide(lookahead, strength, scale),)), keys, (1,), GRID)[0]


def test_without_information_the_guide_does_not_change_samples():
    """Bitwise in the cases where compilers cannot fuse the two means."""
    expected, keys = plain(keys_of(6)), keys_of(6)
    one = Lookahead(LOOKAHEAD.samples[:, :1], LOOKAHEAD.rewards[:, :1])
    for same in (sample(keys, one), sample(keys, scale=0.0)):
        np.testing.assert_array_equal(same, expected)
    even = LOOKAHEAD._replace(rewards=jnp.ones((2, 3)))
    for close in (sample(keys, even, strength=50.0), sample(keys, strength=0.0)):
        np.testing.assert_allclose(close, expected, atol=2e-5)
    assert np.abs(sample(keys) - expected).max() > 0.1


def test_samples_depend_on_their_key_and_the_lookahead_samples_of_their_prompt_only():
    keys, order = keys_of(6), np.array([0, 2, 1, 4, 5, 3])
    base = sample(keys)
    np.testing.assert_array_equal(sample(keys[order]), base[order])
    negated = Lookahead(*(jnp.stack([array[0], -array[1]]) for array in LOOKAHEAD))
    changed = sample(keys, negated)
    np.testing.assert_array_equal(changed[:3], base[:3])
    assert (np.abs(changed[3:] - base[3:]) > 1e-3).all()


def test_guide_acts_in_its_window_only():
    """Outside of the window a guided prediction equals an unguided one, and inside it does not."""
    path = solvers.leading(ScaledLinear(), 10)
    grid = solvers.gaussian_grid(path, solvers.ddim(0.0), solvers.mask_until(path, 0.201))
    assert int(grid.guided.sum()) == 8
    predict = guided(exact, (lookahead_guide(LOOKAHEAD, 5.0, 2.0),))
    x = jnp.array([[0.3], [0.3]])

    def outputs(one):
        every = optimized(lambda rows: jax.lax.map(lambda row: one(x, row, None)[0], rows))
        return every(grid)

    moved, still = outputs(predict), outputs(exact)
    np.testing.assert_array_equal((moved != still).any(axis=(1, 2)), grid.guided)


def test_the_guide_converges_to_the_exact_tilted_score():
    """Root mean square errors fall as n^(-1/2), with the constants of the delta method."""
    points, alpha, sigma, repeats = jnp.array([[-1.5], [0.0], [1.5]]), 0.8, 0.6, 600

    def exact_reward(x):
        value = oracle.future_reward(MIXTURE, LINEAR, 1.0, x, alpha, sigma)
        return jnp.sum(value), value

    @optimized
    def errors(keys, samples):
        (_, value), slope = jax.value_and_grad(exact_reward, has_aux=True)(points)

        def one(key):
            drawn = oracle.draw(key, MIXTURE, len(samples))
            ahead = Lookahead(drawn, LINEAR(drawn))
            steep = lidar.shift(ahead, 1.0, points, alpha, sigma) * alpha / sigma**2 - slope
            return lidar.future_reward(ahead, 1.0, points, alpha, sigma) - value, steep[:, 0]

        return [jnp.sqrt(jnp.mean(part**2, axis=0)) for part in jax.lax.map(one, keys)]

    few, many = (
        np.array(errors(jax.random.split(jax.random.key(count), repeats), np.zeros(count))) for count in (100, 10_000)
    )
    for part, constants in ((0, (0.5425, 0.6078, 0.9681)), (1, (0.985, 1.410, 1.570))):
        np.testing.assert_allclose(many[part] * 100, constants, rtol=0.1)
        slopes = np.log(many[part] / few[part]) / np.log(100)
        assert np.all((slopes > -0.56) & (slopes < -0.44)), slopes


def test_guided_sampling_reaches_the_tilted_distribution():
    """The exact tilted mean is 1.845, and the base mean -0.45; DDPM with 256 lookahead samples."""
    tilted, _ = oracle.tilted(MIXTURE, LINEAR, 1.0)
    assert float(np.exp(tilted.log_weights) @ tilted.means[:, 0]) == pytest.approx(1.8452423972, abs=1e-5)
    samples = oracle.draw(jax.random.key(3), MIXTURE, 8 * 256).reshape(8, 256, 1)
    lookahead = Lookahead(samples, samples[..., 0])
    for scale, mean, error in ((1.0, 1.82, 0.12), (0.0, -0.44, 0.08)):
        assert float(sample(keys_of(8000), lookahead, 1.0, scale).mean()) == pytest.approx(mean, abs=error)
