"""Uniform noise: marginals, reverse steps that are Bayes' rule and compose, and an integrand exact at both ends."""

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
PROCESS, MASKED = UniformDiffusion(K, Linear()), MaskedDiffusion(K, LogLinear())
LOGITS = jax.random.normal(jax.random.key(0), (1, 1, K + 1)) * 2
PROBS = np.asarray(jax.nn.softmax(LOGITS[0, 0, :K]), np.float64)


def matrix(process, level, next_level):
    """P(z_s = j | z_t = i) for one law of the clean token, [S, S]."""
    noisy = jnp.arange(K + isinstance(process, MaskedProcess))[:, None]
    level, next_level = (jnp.full(len(noisy), value, jnp.float32) for value in (level, next_level))
    logits = jnp.broadcast_to(LOGITS, (len(noisy), 1, K + 1))
    return np.exp(np.asarray(jax.jit(process.posterior)(logits, noisy, level, next_level)[:, 0], np.float64))


@jax.jit
def integrands(logits, noisy, clean, level):
    """Return the integrand of each state and its gradient with respect to its logits."""

    def total(logits):
        values = PROCESS.bound_integrand(logits, noisy[:, None], clean[:, None], level)
        return jnp.sum(values), values[:, 0]

    (_, values), gradients = jax.value_and_grad(total, has_aux=True)(logits)
    return values, gradients


def integrand(noisy, clean, level, logits=LOGITS):
    noisy, clean, level = (np.ravel(each) for each in np.broadcast_arrays(noisy, clean, level))
    logits = jnp.broadcast_to(logits, (len(noisy), 1, logits.shape[-1]))
    return integrands(logits, jnp.asarray(noisy, jnp.int32), jnp.asarray(clean, jnp.int32), np.float32(level))


def test_both_processes_follow_the_protocol():
    assert isinstance(PROCESS, Process) and isinstance(MASKED, Process)
    assert isinstance(MASKED, MaskedProcess) and not isinstance(PROCESS, MaskedProcess)


def test_marginals_of_noise_and_the_prior():
    """A position keeps its token with probability alpha + (1 - alpha) / K, whatever the other examples are."""
    corrupt = jax.jit(PROCESS.corrupt)
    clean = jnp.full((4000, 3), 2, jnp.int32)
    for time in (0.0, 0.3, 1.0):
        noisy = np.asarray(corrupt(keys_of(4000, seed=1), clean, jnp.full(4000, time)))
        share = np.bincount(noisy.ravel(), minlength=K) / noisy.size
        np.testing.assert_allclose(share, time / K + (1 - time) * (np.arange(K) == 2), atol=4.5 * 0.5 / noisy.size**0.5)
        np.testing.assert_array_equal(corrupt(keys_of(7, seed=1), clean[:7], jnp.full(7, time)), noisy[:7])
    tokens = np.asarray(PROCESS.prior(keys_of(4000, seed=1), 3))
    np.testing.assert_allclose(np.bincount(tokens.ravel(), minlength=K) / tokens.size, 1 / K, atol=0.02)
    assert PROCESS.prior_nats() == pytest.approx(0, abs=1e-9)
    q = np.where(np.arange(K) == 0, 0.2 + 0.8 / K, 0.8 / K)
    assert UniformDiffusion(K, LogLinear(0.2)).prior_nats() == pytest.approx(np.sum(q * np.log(K * q)))


@pytest.mark.parametrize("process", [PROCESS, MASKED], ids=["uniform", "masked"])
def test_reverse_steps_sum_to_one_and_compose(process):
    """Chapman-Kolmogorov: for one law of the clean token, two reverse steps are one; down to clean data too."""
    for high, middle, low in ((0.9, 0.5, 0.2), (1.0, 0.7, 0.0), (0.3, 1e-3, 1e-6)):
        whole = matrix(process, high, low)
        np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
        two = matrix(process, high, middle) @ matrix(process, middle, low)
        np.testing.assert_allclose(two, whole, atol=2e-5)
    np.testing.assert_allclose(matrix(process, 0.5, 0.5), np.eye(len(whole)), atol=1e-6)


def test_the_step_to_clean_data_is_bayes_rule():
    """Worked: alpha = 0.5 and K = 5 give the own token 3 + 0 times the weight of another, (5 x 0.5 + 0.5) / 0.5 = 6."""
    weights = np.where(np.eye(K) > 0, 6, 1) * PROBS
    expected = weights / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(matrix(PROCESS, 0.5, 0.0), expected, rtol=2e-5, atol=1e-6)
    # From pure noise the state tells nothing; a steep schedule reaches it without NaN.
    np.testing.assert_allclose(matrix(PROCESS, 1.0, 0.0), np.broadcast_to(PROBS, (K, K)), rtol=2e-5)
    assert np.isfinite(matrix(UniformDiffusion(K, Cosine()), 1.0, 1.0)).all()


def direct(noisy, clean, level):
    """The integrand by its formula in float64."""
    alpha = 1 - level
    exact, model = K * alpha * (np.arange(K) == clean) + level, K * alpha * PROBS + level
    ratio, other = exact / exact[noisy], model / model[noisy]
    return np.sum(ratio * np.log(ratio / other) - ratio + other) / (K * alpha)


def test_the_integrand_is_that_of_the_formula():
    """For a state that is the clean token and ones that are not."""
    noisy, clean = np.array([[1], [0], [3], [2]]), np.array([[1], [1], [4], [2]])
    level = np.array([[1e-7, 1e-3, 0.1, 0.5, 0.9, 0.99]], np.float32)
    expected = np.vectorize(direct)(noisy, clean, level.astype(np.float64))
    np.testing.assert_allclose(integrand(noisy, clean, level)[0], expected.ravel(), rtol=2e-4)


def test_the_integrand_is_finite_and_falls_like_alpha_at_the_noisy_end():
    """In float32 the formula itself has an error of 1e-7 / alpha there."""
    values, _ = integrand(1, 2, 1 - 2.0 ** -np.array([10, 14, 18, 22]))
    np.testing.assert_allclose(np.divide(values[1:], values[:-1]), 1 / 16, rtol=0.05)
    level = np.array([[0.0, 1e-7, 1e-3, 1.0]])
    values, gradients = integrand([[1], [2]], 1, level)
    assert np.isfinite(values).all() and (np.asarray(values) >= 0).all()
    assert np.isfinite(np.reshape(gradients, (2, 4, -1))[:, 2:]).all()


def test_the_masked_integrand_times_the_slope_is_the_loss():
    """-alpha' dt is the level's step, and the weight of MDLM's loss -alpha' / (1 - alpha)."""
    level = jnp.full(1, 0.999 * 0.4)
    noisy, clean = jnp.array([[K, 3, K]]), jnp.array([[1, 3, 0]])
    logits = jnp.broadcast_to(LOGITS, (1, 3, K + 1))
    integrand = MASKED.bound_integrand(logits, noisy, clean, level)
    hidden = -MASKED.log_prob(logits, noisy, clean)[:, ::2].sum(axis=1)
    loss = rate(MASKED.schedule, jnp.full(1, 0.4)) * hidden
    np.testing.assert_allclose(0.999 * integrand.sum(axis=1), loss, rtol=1e-5)
    assert integrand[0, 1] == 0


def test_a_perfect_prediction_costs_nothing():
    known = jnp.where(jnp.arange(K) == 2, 0.0, -1e30)[None, None]
    costs, _ = integrand(np.arange(K)[:, None], 2, np.array([[1e-4, 0.5, 0.999]]), known)
    np.testing.assert_allclose(costs, 0, atol=1e-4)
