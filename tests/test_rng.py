"""Random keys as a tree: the noise of an example does not depend on its batch."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws, fold, strata, uniform
from diffusion.schedules.masking import LogLinear
from tests.checks import within
from tests.weights import keys_of


def test_noise_depends_on_the_example_the_purpose_and_the_step_only():
    np.testing.assert_array_equal(uniform(keys_of(6), (5,))[2:4], uniform(keys_of([2, 3]), (5,)))
    root = jax.random.key(0)
    keys = [draws(root, purpose, step, 2).keys for purpose in ("a", "b") for step in (0, 1)]
    keys.append(fold(draws(root, "a", 2, 2).keys, "x"))
    assert len({tuple(np.ravel(uniform(each, (3,)))) for each in keys}) == 5


def test_uniform_numbers_are_stratified_and_uniform():
    noise = draws(jax.random.key(1), "train", 3, 16)
    np.testing.assert_allclose(np.diff(np.sort(noise.uniform)), 1 / 16, atol=1e-6)
    offsets = jax.vmap(lambda step: draws(jax.random.key(1), "train", step, 1).uniform[0])(jnp.arange(2000))
    assert abs(float(offsets.mean()) - 0.5) < 4 * (1 / 12 / 2000) ** 0.5


def test_parts_of_a_batch_cover_the_interval():
    """Of 256 examples on 8 devices, and of every second one, each part has 32 or 16 numbers around 1/2 on average."""
    for size in (1, 2, 3, 6, 16, 100, 256):
        assert sorted(strata(size)) == list(range(size))
    parts = strata(256).reshape(8, 16, 2) / 256
    assert np.abs(parts.mean(axis=(1, 2)) - 0.5).max() < 0.07 and np.abs(parts.mean(axis=1) - 0.5).max() < 0.07


def test_masked_fraction_follows_the_schedule():
    process, clean = MaskedDiffusion(7, LogLinear()), jnp.zeros((64, 256), jnp.int32)
    corrupt = jax.jit(process.corrupt)
    for time in (0.1, 0.5, 1.0):
        masked = np.asarray(corrupt(keys_of(64, seed=2), clean, jnp.full(64, time))) == 7
        assert within(masked, 0.999 * time, masked.size)
