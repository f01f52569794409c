"""Gaussian schedules: published values, and precision in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.schedules.gaussian import CosineSignal, ScaledLinear, SigmaIsTime, SquareRootChain

SCHEDULES = [SigmaIsTime(), CosineSignal(), ScaledLinear(), SquareRootChain()]


@pytest.mark.parametrize(
    ("schedule", "indices", "expected"),
    [
        (
            ScaledLinear(),
            [0, 1, 201, 501, 991, 999],
            [0.99915, 0.99829603, 0.7521434, 0.27499907, 0.00513007, 0.0046601],
        ),
        (
            SquareRootChain(),
            [0, 499, 999, 1499, 1998, 1999],
            [0.98535869, 0.50494950, 0.29578031, 0.13526956, 2.0204e-4, 2.0204e-7],
        ),
    ],
    ids=["stable diffusion", "diffusion-lm"],
)
def test_published_values_of_chains(schedule, indices, expected):
    signal = schedule.signal((np.array(indices) + 1) / schedule.steps)
    np.testing.assert_allclose(signal, expected, rtol=1e-5)
    np.testing.assert_allclose(signal, expected, rtol=0, atol=5e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_signal_and_variance_sum_to_one_and_are_exact_in_float32(schedule):
    time = np.linspace(0, 1, 500)
    np.testing.assert_allclose(schedule.signal(time) + schedule.variance(time), 1, atol=1e-12)
    assert np.all(np.diff(schedule.signal(time)) <= 0)
    time = np.linspace(1e-3, 1, 97)
    alpha, sigma = jax.jit(lambda time: (schedule.alpha(time), schedule.sigma(time)))(jnp.asarray(time, jnp.float32))
    np.testing.assert_allclose(alpha, schedule.alpha(time), atol=2e-6)
    # The tolerance is relative, because small values must keep their precision.
    np.testing.assert_allclose(sigma, schedule.sigma(time), rtol=1e-4)
