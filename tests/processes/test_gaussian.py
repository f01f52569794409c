"""Gaussian noise, and conversions between the quantities that networks predict."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.gaussian import PREDICTIONS, GaussianDiffusion, target, to_clean
from diffusion.schedules.gaussian import SigmaIsTime
from tests.checks import refused
from tests.weights import keys_of

PROCESS = GaussianDiffusion(SigmaIsTime())


def test_worked_example_with_a_time_per_position():
    clean, time = jnp.ones((2, 3, 4)), jnp.array([[0.0, 0.6, 1.0], [0.7, 0.7, 0.7]])
    noisy, noise = GaussianDiffusion(SigmaIsTime(), factor=3.0).corrupt(keys_of(2), clean, time)
    np.testing.assert_allclose(noisy[0].T, np.array([[1, 0.8, 0]]) + np.array([[0, 0.6, 1]]) * noise[0].T, rtol=1e-6)
    plain, unscaled = PROCESS.corrupt(keys_of(2), clean, time)
    np.testing.assert_allclose(noise, 3 * unscaled, rtol=1e-6)
    # Equal times per position give the same result as one time per example, bit for bit.
    np.testing.assert_array_equal(plain[1], PROCESS.corrupt(keys_of(2), clean, time[:, 2])[0][1])


def test_noise_is_standard_and_independent_of_the_batch():
    clean = jnp.zeros((2000, 4))
    noisy, noise = PROCESS.corrupt(keys_of(2000), clean, jnp.full(2000, 0.6))
    assert abs(float(noise.mean())) < 0.05
    assert float(noisy.std()) == pytest.approx(0.6, rel=0.03)
    again, _ = PROCESS.corrupt(keys_of(7), clean[:7], jnp.full(7, 0.6))
    np.testing.assert_array_equal(again, noisy[:7])


@pytest.mark.parametrize("path", ["variance_preserving", "flow"])
def test_predictions_of_all_kinds_convert_to_the_clean_data(path):
    clean, noise = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    time = np.array([0.3, 0.6, 0.9], np.float32)
    alpha, sigma = (np.sqrt(1 - time**2), time) if path == "variance_preserving" else (1 - time, time)
    noisy = alpha[:, None] * clean + sigma[:, None] * noise

    @jax.jit
    def converted(clean, noise, noisy, alpha, sigma):
        targets = [target(kind, clean, noise, alpha, sigma) for kind in PREDICTIONS]
        pairs = zip(PREDICTIONS, targets, strict=True)
        return targets, [to_clean(kind, prediction, noisy, alpha, sigma) for kind, prediction in pairs]

    targets, estimates = converted(clean, noise, noisy, alpha, sigma)
    velocity = alpha[:, None] * noise - sigma[:, None] * clean
    for found, expected in zip(targets, (noise, clean, velocity, noise - clean), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for estimate in estimates:
        np.testing.assert_allclose(estimate, clean, atol=2e-5)


def test_unknown_kinds_and_invalid_factors_are_rejected():
    with refused(r"process.prediction: unknown 'score'; known: epsilon, clean"):
        GaussianDiffusion(SigmaIsTime(), "score")
    with refused(r"process.factor: must be positive"):
        GaussianDiffusion(SigmaIsTime(), factor=0.0)
