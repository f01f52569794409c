"""Gaussian schedules: published levels, their inverses in float32, and the rescaling of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.schedules.gaussian import (
    Betas,
    CosineSignal,
    ScaledLinear,
    SigmaIsTime,
    SquareRoot,
    SquareRootChain,
    rescale_signal,
)

SCHEDULES = {
    "sigma_is_time": SigmaIsTime(),
    "cosine": CosineSignal(),
    "sqrt": SquareRoot(),
    "scaled_linear": ScaledLinear(),
    "sqrt_chain": SquareRootChain(),
}


def test_stable_diffusions_levels():
    indices = np.array([0, 1, 201, 501, 991, 999])
    signal = ScaledLinear().signal((indices + 1) / 1000)
    expected = [0.99915, 0.99829603, 0.7521434, 0.27499907, 0.00513007, 0.0046601]
    np.testing.assert_allclose(signal, expected, atol=5e-8)


def test_diffusion_lms_levels():
    np.testing.assert_allclose(
        SquareRoot().signal(np.array([0, 0.25, 0.5])), [0.99, 0.499900010, 0.292822512], atol=1e-9
    )
    indices = np.array([0, 499, 999, 1499, 1998, 1999])
    expected = [0.98535869, 0.50494950, 0.29578031, 0.13526956, 2.0204e-4, 2.0204e-7]
    np.testing.assert_allclose(SquareRootChain().signal((indices + 1) / 2000), expected, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_and_variance_sum_to_one_and_fall_with_time(name):
    schedule, time = SCHEDULES[name], np.linspace(0, 1, 500)
    np.testing.assert_allclose(schedule.signal(time) + schedule.variance(time), 1, atol=1e-12)
    assert np.all(np.diff(schedule.signal(time)) <= 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_on_the_device_is_float64_on_the_host(name):
    schedule, time = SCHEDULES[name], np.linspace(1e-3, 1, 97)
    made = jax.jit(lambda time: (schedule.alpha(time), schedule.sigma(time)))(jnp.asarray(time, jnp.float32))
    np.testing.assert_allclose(made[0], schedule.alpha(time), atol=3e-4 if name == "sqrt" else 2e-6)
    # Small levels keep their relative precision.
    np.testing.assert_allclose(made[1], schedule.sigma(time), rtol=1e-4)


def test_times_may_have_any_shape():
    time = jnp.linspace(0.1, 0.9, 6).reshape(2, 3)
    for schedule in SCHEDULES.values():
        assert schedule.alpha(time).shape == (2, 3)


def test_rescaled_noise_divides_the_ratio_of_signal_to_noise():
    assert rescale_signal(np.float64(0.5), 4) == pytest.approx(0.0588235294)
    signal = np.linspace(0.01, 0.99, 9)
    made = rescale_signal(signal, 4)
    np.testing.assert_allclose(signal / (1 - signal) / (made / (1 - made)), 16)
    # For sigma = t the same as a time: s t / sqrt(1 - t^2 + s^2 t^2).
    for time, factor, expected in ((0.5, 4, 0.917662935), (0.5, 2, 0.755928946), (0.1, 4, 0.373001923), (0.5, 1, 0.5)):
        assert np.sqrt(1 - rescale_signal(1 - np.float64(time) ** 2, factor)) == pytest.approx(expected)


def test_a_chain_without_betas_is_none():
    with pytest.raises(TypeError, match="abstract"):
        Betas()
