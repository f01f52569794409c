"""FK steering: potentials, products over a path, and limits; and the best of several samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.steering import ParticleWeights, Steering, best, effective_size
from diffusion.schedules.gaussian import ScaledLinear
from tests.weights import keys_of

GRID = solvers.gaussian_grid(
    solvers.leading(ScaledLinear(), 10), solvers.ddim(1.0), resampled=solvers.steering_mask(10)
)


def row(step):
    return jax.tree.map(lambda column: column[step], GRID)


def first_value(clean, carry):
    return clean[:, 0]


def test_particles_are_resampled_at_four_marks_and_at_the_end():
    assert np.flatnonzero(solvers.steering_mask(100)).tolist() == [20, 40, 60, 80, 99]
    assert np.flatnonzero(solvers.steering_mask(50)).tolist() == [10, 20, 30, 40, 49]
    assert np.flatnonzero(solvers.steering_mask(2)).tolist() == [0, 1]


def test_potentials_agree_with_worked_examples():
    reward, before = jnp.array([0.3, -0.2]), ParticleWeights(jnp.array([0.1, 0.0]), jnp.array([2.0, 4.0]))
    expected = {
        "difference": ([0.3, -0.2], [np.exp(2 * 0.2), np.exp(2 * -0.2)]),
        "max": ([0.3, 0.0], [np.exp(0.6), 1.0]),
        "sum": ([0.4, -0.2], [np.exp(0.8), np.exp(-0.4)]),
        "reward": ([0.3, -0.2], [np.exp(0.6), np.exp(-0.4)]),
    }
    for name, (running, potential) in expected.items():
        steering = Steering(first_value, 2, strength=2.0, potential=name)
        result = steering.potentials(reward, before, jnp.array(False))
        np.testing.assert_allclose(result[0], running, rtol=1e-6)
        np.testing.assert_allclose(result[1], potential, rtol=1e-6)
        last = steering.potentials(reward, before, jnp.array(True))[1]
        divided = potential if name == "difference" else np.array(potential) / [2.0, 4.0]
        np.testing.assert_allclose(last, divided, rtol=1e-6)


def test_potentials_are_clamped():
    steering = Steering(first_value, 2, strength=1e4)
    result = steering.potentials(jnp.array([1.0, jnp.nan]), steering.init(2), jnp.array(False))[1]
    np.testing.assert_allclose(result, [1e10, 0.0])


@pytest.mark.parametrize("potential", ["difference", "max"])
def test_product_of_potentials_over_a_path(potential):
    """With one particle, which is always drawn, it is exp(strength r_T)."""
    steering = Steering(first_value, 1, strength=1.5, potential=potential)
    weights, rewards = steering.init(3), [0.2, 0.9, 0.4, 1.3, 1.1]
    for step, value in zip((2, 4, 6, 8, 9), rewards, strict=True):
        clean = jnp.full((3, 1), value)
        *_, weights = steering(keys_of(3), clean, clean, None, weights, row(step)._replace(last=jnp.array(step == 9)))
    final = {"difference": 1.1, "max": 1.3}[potential]
    # The effective sample size of one particle is 1, so that the last step does not resample.
    if potential == "difference":
        np.testing.assert_allclose(weights.product, np.exp(1.5 * 1.3), rtol=1e-5)
        before = ParticleWeights(jnp.full(3, 1.3), weights.product)
        result = weights.product * steering.potentials(jnp.full(3, final), before, jnp.array(True))[1]
    else:
        result = weights.product * steering.potentials(jnp.full(3, final), weights, jnp.array(True))[1]
    np.testing.assert_allclose(result, np.exp(1.5 * final), rtol=1e-5)


def test_equal_rewards_resample_uniformly_and_a_large_strength_selects_the_best():
    clean = jnp.tile(jnp.array([[0.1], [0.4], [0.2], [0.3]]), (500, 1))
    x = jnp.arange(2000.0)[:, None]
    uniform = Steering(lambda clean, carry: jnp.zeros(len(clean)), 4)
    moved = uniform(keys_of(2000), x, clean, None, uniform.init(2000), row(2))[0]
    which = np.asarray(moved[:, 0]).astype(int) % 4
    np.testing.assert_allclose(np.bincount(which) / 2000, 0.25, atol=0.04)
    assert np.all(np.asarray(moved[:, 0]).astype(int) // 4 == np.arange(2000) // 4), "draws stay within their prompt"
    greedy = Steering(first_value, 4, strength=55.0, potential="reward")
    moved = greedy(keys_of(2000), x, clean, None, greedy.init(2000), row(2))[0]
    assert np.mean(np.asarray(moved[:, 0]).astype(int) % 4 == 1) > 0.98


def test_other_steps_do_not_resample_nor_equal_weights_in_the_last_step_and_when_adaptive():
    x = jnp.arange(4.0)[:, None]
    steering = Steering(first_value, 2)
    np.testing.assert_array_equal(steering(keys_of(4), x, x, None, steering.init(4), row(3))[0], x)
    even = Steering(lambda clean, carry: jnp.full(len(clean), 0.7), 4)
    result = even(keys_of(4), x, x, None, even.init(4), row(9))
    np.testing.assert_array_equal(result[0], x)
    np.testing.assert_allclose(result[3].running, 0.7)
    np.testing.assert_allclose(result[3].product, 1.0)
    adaptive = Steering(lambda clean, carry: jnp.full(len(clean), 0.7), 4, adaptive=True)
    np.testing.assert_array_equal(adaptive(keys_of(4), x, x, None, adaptive.init(4), row(2))[0], x)
    draws = {tuple(np.asarray(even(keys_of(4, seed), x, x, None, even.init(4), row(2))[0][:, 0])) for seed in range(5)}
    assert len(draws) > 1


def test_effective_sizes():
    sizes = effective_size(jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(sizes, [4, 1, 0])


def test_best_of_each_prompt_improves_with_more_samples():
    rewards = jax.random.normal(jax.random.key(0), (3, 8))
    x = rewards.reshape(-1, 1)
    selected = best(x, x[:, 0], 3, 2).reshape(3, 2)
    np.testing.assert_array_equal(selected, -np.sort(-rewards, axis=1)[:, :2])
    means = [
        float(best(rewards[:, :count].reshape(-1, 1), rewards[:, :count].reshape(-1), 3, 1).mean())
        for count in (1, 2, 4, 8)
    ]
    assert means == sorted(means)


def test_invalid_settings_raise():
    with pytest.raises(ValueError, match=r"sample.guide.potential: unknown 'min'"):
        Steering(first_value, 2, potential="min")
    with pytest.raises(ValueError, match=r"sample.guide.particles: must be at least 1, not 0"):
        Steering(first_value, 0)
    with pytest.raises(ValueError, match=r"sample.guide.particles: 4 do not divide the batch of 6"):
        Steering(first_value, 4).init(6)
