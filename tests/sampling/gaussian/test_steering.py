"""FK steering: potentials, products over a path, and limits; and the best of several samples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.steering import ParticleWeights, Steering, best, effective_size
from tests.checks import refused
from tests.weights import keys_of


class Row(NamedTuple):
    resampled: bool = True
    last: bool = False


def first_value(clean, carry):
    return clean[:, 0]


def constant(clean, carry):
    return jnp.full(len(clean), 0.7)


step = jax.jit(lambda steering, *inputs: steering(*inputs), static_argnums=0)


def test_particles_are_resampled_at_four_marks_and_at_the_end():
    for steps, marks in ((100, [20, 40, 60, 80, 99]), (50, [10, 20, 30, 40, 49]), (2, [0, 1])):
        assert np.flatnonzero(solvers.steering_mask(steps)).tolist() == marks


@pytest.mark.parametrize(
    ("name", "running", "exponents"),
    [
        ("difference", [0.3, -0.2], [0.4, -0.4]),
        ("max", [0.3, 0.0], [0.6, 0.0]),
        ("sum", [0.4, -0.2], [0.8, -0.4]),
        ("reward", [0.3, -0.2], [0.6, -0.4]),
    ],
)
def test_potentials_agree_with_worked_examples(name, running, exponents):
    """In the last step all but "difference" are divided by the product of the previous ones."""
    reward, before = jnp.array([0.3, -0.2]), ParticleWeights(jnp.array([0.1, 0.0]), jnp.array([2.0, 4.0]))
    steering = Steering(first_value, 2, strength=2.0, potential=name)
    for last, product in ((False, 1), (True, 1 if name == "difference" else np.array([2.0, 4.0]))):
        result = steering.potentials(reward, before, jnp.array(last))
        np.testing.assert_allclose(result[0], running, rtol=1e-6)
        np.testing.assert_allclose(result[1], np.exp(exponents) / product, rtol=1e-6)


def test_potentials_are_clamped():
    steering = Steering(first_value, 2, strength=1e4)
    result = steering.potentials(jnp.array([1.0, jnp.nan]), steering.init(2), jnp.array(False))[1]
    np.testing.assert_allclose(result, [1e10, 0.0])


@pytest.mark.parametrize(("potential", "final"), [("difference", 1.1), ("max", 1.3)])
def test_product_of_potentials_over_a_path(potential, final):
    """With one particle, which is always drawn, it is exp(strength r_T); the last step does not resample it."""
    steering = Steering(first_value, 1, strength=1.5, potential=potential)
    weights = steering.init(3)
    for value in (0.2, 0.9, 0.4, 1.3):
        clean = jnp.full((3, 1), value)
        *_, weights = step(steering, keys_of(3), clean, clean, None, weights, Row())
    np.testing.assert_allclose(weights.running, 1.3)
    result = weights.product * steering.potentials(jnp.full(3, 1.1), weights, jnp.array(True))[1]
    np.testing.assert_allclose(result, np.exp(1.5 * final), rtol=1e-5)
    *_, after = step(steering, keys_of(3), clean, clean, None, weights, Row(last=True))
    np.testing.assert_array_equal(after.product, weights.product)


def test_equal_rewards_resample_uniformly_and_a_large_strength_selects_the_best():
    clean = jnp.tile(jnp.array([[0.1], [0.4], [0.2], [0.3]]), (500, 1))
    x = jnp.arange(2000.0)[:, None]

    def moved(strength):
        steering = Steering(first_value, 4, strength, potential="reward")
        result = step(steering, keys_of(2000), x, clean, None, steering.init(2000), Row())
        np.testing.assert_array_equal(result[1][:, 0], clean[np.asarray(result[0], int)[:, 0], 0])
        return np.asarray(result[0][:, 0]).astype(int)

    which = moved(0.0)
    np.testing.assert_allclose(np.bincount(which % 4) / 2000, 0.25, atol=0.04)
    assert np.all(which // 4 == np.arange(2000) // 4), "draws stay within their prompt"
    assert np.mean(moved(55.0) % 4 == 1) > 0.98


def test_other_steps_do_not_resample_nor_equal_weights_in_the_last_step_and_when_adaptive():
    x = jnp.arange(4.0)[:, None]

    def moved(row, adaptive=False, seed=0):
        steering = Steering(constant, 4, adaptive=adaptive)
        return step(steering, keys_of(4, seed), x, x, None, steering.init(4), row)

    for row, adaptive in ((Row(resampled=False), False), (Row(last=True), False), (Row(), True)):
        np.testing.assert_array_equal(moved(row, adaptive)[0], x)
    weights = moved(Row(last=True))[3]
    np.testing.assert_allclose(weights.running, 0.7)
    np.testing.assert_allclose(weights.product, 1.0)
    assert len({tuple(moved(Row(), seed=seed)[0][:, 0].tolist()) for seed in range(5)}) > 1


def test_effective_sizes():
    np.testing.assert_allclose(effective_size(jnp.array([[1.0] * 4, [1, 0, 0, 0], [0.0] * 4])), [4, 1, 0])


def test_the_best_of_each_prompt_come_in_order():
    rewards = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    selected = best(jnp.asarray(rewards.reshape(-1, 1)), jnp.asarray(rewards.ravel()), 3, 2)
    np.testing.assert_array_equal(selected.reshape(3, 2), -np.sort(-rewards, axis=1)[:, :2])


def test_invalid_settings_raise():
    with refused(r"steering.potential: unknown 'min'"):
        Steering(first_value, 2, potential="min")
    with refused(r"steering.particles: must be at least 1, not 0"):
        Steering(first_value, 0)
    with refused(r"steering.particles: 4 do not divide the batch of 6"):
        Steering(first_value, 4).init(6)
