"""Self-conditioning perturbation: gaps, and the joint distributions of the two states."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.perturbation import NoisyState, Perturbation, transition
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import normal
from diffusion.schedules.gaussian import SigmaIsTime
from tests.weights import keys_of

PLAIN, LOUD = GaussianDiffusion(SigmaIsTime(), "clean"), GaussianDiffusion(SigmaIsTime(), "clean", 3.0)
SIZE = 4000


def gaps(time, keys=None, **fields):
    keys = keys_of(len(time)) if keys is None else keys
    return np.asarray(Perturbation(**fields).gaps(keys, jnp.asarray(time)))


def test_fixed_gaps():
    """0.35 -> 0.55 and 0.9 -> 1; with different times per token 0.5, 0.75 -> 0.7, 0.95."""
    time = np.array([[0.35, 0.9], [0.5, 0.75]], np.float32)
    later = np.minimum(time + gaps(time, gap="fixed", size=0.2), 1)
    np.testing.assert_allclose(later, [[0.55, 1.0], [0.7, 0.95]], rtol=1e-6)
    for off in (dict(gap="off"), dict(gap="fixed", size=0.0), dict(gap="uniform", probability=0.0)):
        np.testing.assert_array_equal(gaps(time, **off), 0)


def test_random_gaps():
    time = np.full((SIZE, 2), 0.4, np.float32)
    uniform = gaps(time, gap="uniform")
    assert uniform.min() >= 0 and uniform.max() <= 0.6 + 1e-6 and uniform.mean() == pytest.approx(0.3, abs=0.01)
    np.testing.assert_array_equal(uniform[:, 0], uniform[:, 1])  # one draw per example
    bounded = gaps(time, gap="uniform_gap", size=0.5)
    assert bounded.max() <= 0.5 and bounded.mean() == pytest.approx(0.25, abs=0.01)
    values, counts = np.unique(gaps(time, gap="randk", steps=(2, 4, 10))[:, 0], return_counts=True)
    np.testing.assert_allclose(values, [0.1, 0.25, 0.5], rtol=1e-6)
    np.testing.assert_allclose(counts / SIZE, 1 / 3, atol=0.03)
    some = gaps(time, gap="fixed", size=0.2, probability=0.3)[:, 0]
    assert (some > 0).mean() == pytest.approx(0.3, abs=0.03)


def test_worked_example_of_the_markov_transition():
    """From 0.6 to 0.8, rho = 0.75 and the variance is 0.4375."""
    ratio, deviation = transition(PLAIN, jnp.array([[0.6]]), jnp.array([[0.8]]))
    assert float(ratio[0, 0]) == pytest.approx(0.75, rel=1e-6)
    assert float(deviation[0, 0]) ** 2 == pytest.approx(0.4375, rel=1e-5)
    ratio, deviation = transition(PLAIN, jnp.array([[1.0]]), jnp.array([[1.0]]))
    assert np.isfinite(float(ratio[0, 0])) and np.isfinite(float(deviation[0, 0]))


def ahead(couple, process, time=0.6, later=0.8, width=250, gap="fixed"):
    keys = keys_of(SIZE)
    clean = jnp.ones((SIZE, 1, width))
    times = (jnp.full((SIZE, 1), value) for value in (time, later))
    before, after = times
    noisy, noise = process.corrupt(keys, clean, before)
    now = NoisyState(clean, noisy, noise, before)
    state = Perturbation(gap=gap, couple=couple).state(keys_of(SIZE, seed=1), process, now, after)
    return np.asarray(clean), np.asarray(noisy), np.asarray(state)


def test_markov_states_have_the_right_distribution():
    """z_t' is N(0.6, 0.64 F^2), and its regression on z_t has slope rho; a million draws."""
    for process in (PLAIN, LOUD):
        _, noisy, state = ahead("markov", process)
        assert state.mean() == pytest.approx(0.6, rel=5e-3 * process.factor)
        assert state.var() == pytest.approx(0.64 * process.factor**2, rel=5e-3)
        assert np.cov(noisy.ravel(), state.ravel())[0, 1] / noisy.var() == pytest.approx(0.75, rel=5e-3)


def test_only_shared_noise_determines_the_data():
    """z_0 = (sigma' z_t - sigma z_t') / (sigma' alpha - sigma alpha') = (0.8 z_t - 0.6 z_t') / 0.28."""
    for couple in ("shared", "independent", "markov"):
        for process in (PLAIN, LOUD):
            clean, noisy, state = ahead(couple, process, width=4)
            error = np.abs((0.8 * noisy - 0.6 * state) / 0.28 - clean)
            assert error.max() < 1e-4 if couple == "shared" else error.mean() > 0.5


def test_without_a_gap_the_state_is_unchanged():
    for couple in ("shared", "independent", "markov"):
        _, noisy, state = ahead(couple, LOUD, later=0.6, width=2)
        np.testing.assert_array_equal(state, noisy)


def test_estimates_of_few_steps_are_worse_than_those_of_training():
    """The error of the Bayes estimate of z_0 = +-1 for sigma = t is 3.5 times as large at 0.7 as at 0.5."""
    points, weights = np.polynomial.hermite_e.hermegauss(180)
    for time, expected in ((0.5, 0.124318), (0.7, 0.436900), (0.9, 0.806489)):
        alpha = np.sqrt(1 - time**2)
        exact = np.sum(weights * (np.tanh(alpha * (alpha + time * points) / time**2) - 1) ** 2) / np.sqrt(2 * np.pi)
        assert exact == pytest.approx(expected, abs=1e-4)
        clean = jnp.sign(normal(keys_of(SIZE, seed=2), (1, 500)))
        noisy, _ = PLAIN.corrupt(keys_of(SIZE), clean, jnp.full((SIZE, 1), time))
        drawn = jnp.mean((jnp.tanh(alpha * noisy / time**2) - clean) ** 2)
        assert float(drawn) == pytest.approx(exact, abs=1e-3)


def test_invalid_options_are_rejected():
    for fields, message in (
        (dict(gap="wide"), "scp.gap: unknown 'wide'; known: off, fixed, randk, uniform, uniform_gap"),
        (dict(couple="twin"), "scp.couple: unknown 'twin'"),
        (dict(size=2.0), "scp.size: must lie in"),
        (dict(steps=()), "scp.steps: must be counts"),
    ):
        with pytest.raises(ValueError, match=message):
            Perturbation(**fields)
