"""Gaussian schedules: published values, and precision in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.schedules.gaussian import (
    BetaChain,
    CosineSignal,
    ScaledLinear,
    SigmaIsTime,
    SquareRootChain,
)

SCHEDULES = {
    "sigma_is_time": SigmaIsTime(),
    "cosine": CosineSignal(),
    "scaled_linear": ScaledLinear(),
    "sqrt_chain": SquareRootChain(),
}


def test_published_values_of_stable_diffusion():
    indices = np.array([0, 1, 201, 501, 991, 999])
    signal = ScaledLinear().signal((indices + 1) / 1000)
    expected = [0.99915, 0.99829603, 0.7521434, 0.27499907, 0.00513007, 0.0046601]
    np.testing.assert_allclose(signal, expected, atol=5e-8)


def test_published_values_of_diffusion_lm():
    indices = np.array([0, 499, 999, 1499, 1998, 1999])
    expected = [0.98535869, 0.50494950, 0.29578031, 0.13526956, 2.0204e-4, 2.0204e-7]
    np.testing.assert_allclose(SquareRootChain().signal((indices + 1) / 2000), expected, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_and_variance_sum_to_one_and_signal_decreases(name):
    schedule, time = SCHEDULES[name], np.linspace(0, 1, 500)
    np.testing.assert_allclose(schedule.signal(time) + schedule.variance(time), 1, atol=1e-12)
    assert np.all(np.diff(schedule.signal(time)) <= 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_on_the_device_matches_float64_on_the_host(name):
    schedule, time = SCHEDULES[name], np.linspace(1e-3, 1, 97)
    alpha, sigma = jax.jit(lambda time: (schedule.alpha(time), schedule.sigma(time)))(jnp.asarray(time, jnp.float32))
    np.testing.assert_allclose(alpha, schedule.alpha(time), atol=2e-6)
    # The tolerance is relative, because small values must keep their precision.
    np.testing.assert_allclose(sigma, schedule.sigma(time), rtol=1e-4)


def test_a_chain_without_betas_cannot_be_created():
    with pytest.raises(TypeError, match="abstract"):
        BetaChain()
