"""Uniform noise: marginals, reverse steps that are Bayes' rule and compose, and an integrand exact at both ends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.uniform import UniformDiffusion
from diffusion.schedules.masking import Cosine, Linear, LogLinear, rate
from diffusion.types import MaskedProcess, Process
from tests.weights import keys_of

K = 5
PROCESS, MASKED = UniformDiffusion(K, Linear()), MaskedDiffusion(K, Linear())
LOGITS = jax.random.normal(jax.random.key(0), (1, 1, K + 1)) * 2
PROBS = np.asarray(jax.nn.softmax(LOGITS[0, 0, :K]), np.float64)


def full(value):
    return jnp.full(1, value, jnp.float32)


def matrix(process, level, next_level, states):
    """P(z_s = j | z_t = i) for one law of the clean token, [S, S]."""
    rows = [
        process.posterior(LOGITS, jnp.full((1, 1), state), full(level), full(next_level)) for state in range(states)
    ]
    return np.exp(np.asarray(jnp.concatenate(rows)[:, 0], np.float64))


def test_both_processes_follow_the_protocol():
    assert isinstance(PROCESS, Process) and isinstance(MASKED, Process)
    assert isinstance(MASKED, MaskedProcess) and not isinstance(PROCESS, MaskedProcess)


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_marginals_of_noise(time):
    """A position keeps its token with probability alpha + (1 - alpha) / K, whatever the other examples are."""
    clean = jnp.full((4000, 3), 2, jnp.int32)
    noisy = jax.jit(PROCESS.corrupt)(keys_of(4000, seed=1), clean, jnp.full(4000, time))
    share = np.bincount(np.asarray(noisy).ravel(), minlength=K) / noisy.size
    np.testing.assert_allclose(share, time / K + (1 - time) * (np.arange(K) == 2), atol=4.5 * 0.5 / noisy.size**0.5)
    few = jax.jit(PROCESS.corrupt)(keys_of(7, seed=1), clean[:7], jnp.full(7, time))
    np.testing.assert_array_equal(few, noisy[:7])


def test_the_prior_is_uniform():
    tokens = np.asarray(PROCESS.prior(keys_of(4000, seed=1), 3))
    np.testing.assert_allclose(np.bincount(tokens.ravel(), minlength=K) / tokens.size, 1 / K, atol=0.02)
    assert PROCESS.prior_nats() == pytest.approx(0, abs=1e-9)
    q = np.where(np.arange(K) == 0, 0.2 + 0.8 / K, 0.8 / K)
    assert UniformDiffusion(K, LogLinear(0.2)).prior_nats() == pytest.approx(np.sum(q * np.log(K * q)))


@pytest.mark.parametrize(("process", "states"), [(PROCESS, K), (MASKED, K + 1)], ids=["uniform", "masked"])
def test_reverse_steps_sum_to_one_and_compose(process, states):
    """Chapman-Kolmogorov: for one law of the clean token, two reverse steps are one; down to clean data too."""
    for high, middle, low in ((0.9, 0.5, 0.2), (1.0, 0.7, 0.0), (0.3, 1e-3, 1e-6)):
        whole = matrix(process, high, low, states)
        np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
        two = matrix(process, high, middle, states) @ matrix(process, middle, low, states)
        np.testing.assert_allclose(two, whole, atol=2e-5)
    np.testing.assert_allclose(matrix(process, 0.5, 0.5, states), np.eye(states), atol=1e-6)


def test_the_step_to_clean_data_is_bayes_rule():
    """Worked: alpha = 0.5 and K = 5 give the own token 3 + 0 times the weight of another, (5 x 0.5 + 0.5) / 0.5 = 6."""
    weights = np.where(np.eye(K) > 0, 6, 1) * PROBS
    np.testing.assert_allclose(
        matrix(PROCESS, 0.5, 0.0, K), weights / weights.sum(axis=1, keepdims=True), rtol=2e-5, atol=1e-6
    )
    # From pure noise the state tells nothing.
    np.testing.assert_allclose(matrix(PROCESS, 1.0, 0.0, K), np.broadcast_to(PROBS, (K, K)), rtol=2e-5)


def direct(noisy, clean, level):
    """The integrand by its formula in float64."""
    alpha = 1 - level
    exact, model = K * alpha * (np.arange(K) == clean) + level, K * alpha * PROBS + level
    ratio, other = exact / exact[noisy], model / model[noisy]
    return np.sum(ratio * np.log(ratio / other) - ratio + other) / (K * alpha)


@pytest.mark.parametrize("level", [1e-7, 1e-3, 0.1, 0.5, 0.9, 0.99])
def test_the_integrand_is_that_of_the_formula(level):
    """For a state that is the clean token and ones that are not."""
    level = float(np.float32(level))
    for noisy, clean in ((1, 1), (0, 1), (3, 4), (2, 2)):
        found = PROCESS.bound_integrand(LOGITS, jnp.full((1, 1), noisy), jnp.full((1, 1), clean), full(level))
        np.testing.assert_allclose(found[0, 0], direct(noisy, clean, level), rtol=2e-4)


def test_the_integrand_is_finite_and_falls_like_alpha_at_the_noisy_end():
    """In float32 the formula itself has an error of 1e-7 / alpha there."""
    tokens, clean = jnp.full((1, 1), 1), jnp.full((1, 1), 2)
    values = [float(PROCESS.bound_integrand(LOGITS, tokens, clean, full(1 - 2.0**-n))[0, 0]) for n in (10, 14, 18, 22)]
    np.testing.assert_allclose(np.divide(values[1:], values[:-1]), 1 / 16, rtol=0.05)

    @partial(jax.jit, static_argnums=1)
    def slope(level, noisy):
        tokens = jnp.full((1, 1), noisy)
        return jax.value_and_grad(lambda x: PROCESS.bound_integrand(x, tokens, clean, level).sum())(LOGITS)

    for level in (0.0, 1e-7, 1e-3, 1.0):
        for noisy in (1, 2):
            value, gradient = slope(full(level), noisy)
            assert np.isfinite(value) and value >= 0
            assert np.isfinite(gradient).all() or level < 1e-3


def test_the_masked_integrand_times_the_slope_is_the_loss():
    """-alpha' dt is the level's step, and the weight of MDLM's loss -alpha' / (1 - alpha)."""
    process, level = MaskedDiffusion(K, LogLinear()), full(0.999 * 0.4)
    noisy, clean = jnp.array([[K, 3, K]]), jnp.array([[1, 3, 0]])
    logits = jnp.broadcast_to(LOGITS, (1, 3, K + 1))
    integrand = process.bound_integrand(logits, noisy, clean, level)
    hidden = -process.log_prob(logits, noisy, clean)[:, ::2].sum(axis=1)
    loss = rate(process.schedule, full(0.4)) * hidden
    np.testing.assert_allclose(0.999 * integrand.sum(axis=1), loss, rtol=1e-5)
    assert integrand[0, 1] == 0


def test_a_perfect_prediction_costs_nothing():
    known = jnp.where(jnp.arange(K) == 2, 0.0, -1e30)[None, None]
    for noisy in range(K):
        for level in (1e-4, 0.5, 0.999):
            cost = PROCESS.bound_integrand(known, jnp.full((1, 1), noisy), jnp.full((1, 1), 2), full(level))
            np.testing.assert_allclose(cost, 0, atol=1e-4)


def test_steep_schedules_reach_pure_noise_without_nan():
    process = UniformDiffusion(K, Cosine())
    step = process.posterior(LOGITS, jnp.full((1, 1), 0), full(1.0), full(1.0))
    assert np.isfinite(step).all()
