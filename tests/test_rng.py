"""Random keys as a tree: the noise of an example does not depend on its batch."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws, example_keys, fold, uniform
from diffusion.schedules.masking import LogLinear


def test_example_noise_does_not_depend_on_the_batch():
    key = jax.random.key(0)
    many = uniform(example_keys(key, jnp.arange(6)), (5,))
    few = uniform(example_keys(jax.random.key(0), jnp.arange(2, 4)), (5,))
    np.testing.assert_array_equal(many[2:4], few)


def test_purposes_and_steps_have_different_keys():
    root = jax.random.key(0)
    values = [uniform(draws(root, purpose, step, 2).keys, (3,)) for purpose in ("a", "b") for step in (0, 1)]
    assert len({tuple(np.ravel(value)) for value in values}) == 4
    assert not np.array_equal(uniform(fold(draws(root, "a", 2, 2).keys, "x"), (3,)), values[0])


def test_uniform_numbers_are_stratified_and_uniform():
    noise = draws(jax.random.key(1), "train", 3, 16)
    np.testing.assert_allclose(np.diff(np.sort(noise.uniform)), 1 / 16, atol=1e-6)
    offsets = jax.vmap(lambda step: draws(jax.random.key(1), "train", step, 1).uniform[0])(jnp.arange(2000))
    assert abs(float(offsets.mean()) - 0.5) < 4 * (1 / 12 / 2000) ** 0.5


def test_masked_fraction_follows_the_schedule():
    process = MaskedDiffusion(7, LogLinear())
    keys = example_keys(jax.random.key(2), jnp.arange(64))
    clean = jnp.zeros((64, 256), jnp.int32)
    for time in (0.1, 0.5, 1.0):
        masked = (process.corrupt(keys, clean, jnp.full(64, time)) == 7).mean()
        level = 0.999 * time
        assert abs(float(masked) - level) < 4 * (level * (1 - level) / clean.size) ** 0.5 + 1e-9
