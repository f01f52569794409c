"""Self-conditioning perturbation: gaps, and the joint distributions of the two states."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.perturbation import NoisyState, Perturbation, transition
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.schedules.gaussian import SigmaIsTime
from tests.checks import optimized, refused
from tests.weights import keys_of

PLAIN, LOUD = GaussianDiffusion(SigmaIsTime(), "clean"), GaussianDiffusion(SigmaIsTime(), "clean", 3.0)
SIZE, WIDTH = 4000, 60
KEYS = keys_of(SIZE)
TIME = np.tile(np.array([[0.35, 0.9], [0.5, 0.75]], np.float32), (SIZE // 2, 1))


def gaps(time=TIME, **fields):
    return np.asarray(Perturbation(**fields).gaps(KEYS, jnp.asarray(time)))


def test_fixed_gaps():
    """0.35 -> 0.55 and 0.9 -> 1; with different times per token 0.5, 0.75 -> 0.7, 0.95."""
    later = np.minimum(TIME + gaps(gap="fixed", size=0.2), 1)
    np.testing.assert_allclose(later[:2], [[0.55, 1.0], [0.7, 0.95]], rtol=1e-6)
    for off in (dict(gap="off"), dict(gap="fixed", size=0.0), dict(gap="uniform", probability=0.0)):
        np.testing.assert_array_equal(gaps(**off), 0)


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
    """From 0.6 to 0.8, rho = 0.75 and the variance is 0.4375; from 1 to 1 they are finite."""
    ratio, deviation = transition(PLAIN, jnp.array([[0.6, 1.0]]), jnp.array([[0.8, 1.0]]))
    assert float(ratio[0, 0]) == pytest.approx(0.75, rel=1e-6)
    assert float(deviation[0, 0]) ** 2 == pytest.approx(0.4375, rel=1e-5)
    assert np.isfinite(ratio[0, 1]) and np.isfinite(deviation[0, 1])


@partial(optimized, static_argnums=(0, 1))
def states(couple, process, time, later):
    clean, times = jnp.ones((SIZE, 1, WIDTH)), jnp.full((SIZE, 1), time)
    noisy, noise = process.corrupt(KEYS, clean, times)
    now = NoisyState(clean, noisy, noise, times)
    perturbation = Perturbation(gap="fixed", couple=couple)
    return noisy, perturbation.state(keys_of(SIZE, seed=1), process, now, jnp.full((SIZE, 1), later))


@pytest.mark.parametrize("process", [PLAIN, LOUD], ids=["plain", "loud"])
@pytest.mark.parametrize("couple", ["shared", "independent", "markov"])
def test_only_shared_noise_determines_the_data(couple, process):
    """z_0 = (sigma' z_t - sigma z_t') / (sigma' alpha - sigma alpha') = (0.8 z_t - 0.6 z_t') / 0.28.

    The distribution of z_t' is N(0.6, 0.64 F^2), and a markov state has a regression on z_t with slope rho = 0.75.
    """
    noisy, state = map(np.asarray, states(couple, process, 0.6, 0.8))
    error = np.abs((0.8 * noisy - 0.6 * state) / 0.28 - 1)
    assert error.max() < 2e-4 if couple == "shared" else error.mean() > 0.5
    assert state.mean() == pytest.approx(0.6, rel=0.01 * process.factor)
    assert state.var() == pytest.approx(0.64 * process.factor**2, rel=0.015)
    if couple == "markov":
        assert np.cov(noisy.ravel(), state.ravel())[0, 1] / noisy.var() == pytest.approx(0.75, rel=0.01)
    # Without a gap the state is unchanged.
    np.testing.assert_array_equal(*states(couple, process, 0.6, 0.6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(gap="wide"), "scp.gap: unknown 'wide'; known: off, fixed, randk, uniform, uniform_gap"),
        (dict(couple="twin"), "scp.couple: unknown 'twin'"),
        (dict(size=2.0), "scp.size: must lie in"),
        (dict(steps=()), "scp.steps: must be counts"),
    ],
)
def test_invalid_options_are_rejected(fields, message):
    with refused(message):
        Perturbation(**fields)
