"""Gaussian noise, and conversions between the quantities that networks predict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.gaussian import GaussianDiffusion, target, to_clean
from diffusion.schedules.gaussian import SigmaIsTime
from tests.weights import keys_of

KINDS = ("epsilon", "clean", "velocity", "flow")


def test_worked_example_of_the_forward_process():
    clean = jnp.ones((1, 1, 1))
    noisy, noise = GaussianDiffusion(SigmaIsTime()).corrupt(keys_of(1), clean, jnp.array([0.6]))
    np.testing.assert_allclose(noisy, 0.8 + 0.6 * noise, rtol=1e-6)
    for time, expected in ((0.0, clean), (1.0, 3 * noise)):
        noisy, scaled = GaussianDiffusion(SigmaIsTime(), factor=3.0).corrupt(keys_of(1), clean, jnp.array([time]))
        np.testing.assert_allclose(noisy, expected, rtol=1e-6)
        np.testing.assert_allclose(scaled, 3 * noise, rtol=1e-6)


def test_noise_is_standard_and_independent_of_the_batch():
    clean = jnp.zeros((2000, 4))
    noisy, noise = GaussianDiffusion(SigmaIsTime()).corrupt(keys_of(2000), clean, jnp.full(2000, 0.6))
    assert abs(float(noise.mean())) < 0.05
    assert float(noisy.std()) == pytest.approx(0.6, rel=0.03)
    again, _ = GaussianDiffusion(SigmaIsTime()).corrupt(keys_of(7), clean[:7], jnp.full(7, 0.6))
    np.testing.assert_array_equal(again, noisy[:7])


def test_positions_may_have_different_times():
    clean, time = jnp.ones((2, 3, 4)), jnp.array([[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]])
    process = GaussianDiffusion(SigmaIsTime())
    noisy, noise = process.corrupt(keys_of(2), clean, time)
    expected = np.sqrt(1 - time**2)[..., None] + time[..., None] * noise
    np.testing.assert_allclose(noisy, expected, rtol=1e-5)
    # Equal times per position give the same result as one time per example, bit for bit.
    one, _ = process.corrupt(keys_of(2), clean, jnp.full((2, 3), 0.7))
    other, _ = process.corrupt(keys_of(2), clean, jnp.full(2, 0.7))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["variance_preserving", "flow"])
def test_predictions_of_all_kinds_convert_to_the_clean_data(kind, path):
    key = jax.random.key(1)
    clean, noise = (jax.random.normal(one, (3, 5)) for one in jax.random.split(key))
    time = jnp.array([0.3, 0.6, 0.9])
    alpha, sigma = (jnp.sqrt(1 - time**2), time) if path == "variance_preserving" else (1 - time, time)
    noisy = alpha[:, None] * clean + sigma[:, None] * noise
    prediction = target(kind, clean, noise, alpha, sigma)
    np.testing.assert_allclose(to_clean(kind, prediction, noisy, alpha, sigma), clean, atol=2e-5)


def test_unknown_kinds_and_invalid_factors_are_rejected():
    with pytest.raises(ValueError, match=r"process.prediction: unknown 'score'; known: epsilon, clean"):
        GaussianDiffusion(SigmaIsTime(), "score")
    with pytest.raises(ValueError, match=r"process.factor: must be positive"):
        GaussianDiffusion(SigmaIsTime(), factor=0.0)
