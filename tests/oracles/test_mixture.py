"""Gaussian mixtures: scores, tilted mixtures and future rewards; worked examples and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle

MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)
POINTS, ALPHA, SIGMA = jnp.array([[-1.5], [0.0], [1.5]]), 0.8, 0.6


@jax.jit
def denoised(mixture, x):
    """The exact denoiser, the score (alpha E[x_0 | x_t = x] - x) / sigma^2, and the gradient of the log-density."""
    clean = oracle.clean(mixture, x, ALPHA, SIGMA)
    slope = jax.grad(lambda x: jnp.sum(oracle.log_density(mixture, x, ALPHA, SIGMA)))(x)
    return clean, (ALPHA * clean - x) / SIGMA**2, slope


def test_the_exact_denoiser_and_score():
    clean, score, slope = denoised(MIXTURE, POINTS)
    np.testing.assert_allclose(clean[:, 0], [-1.9365134261, 0.2149343501, 1.5884422895], rtol=2e-6)
    np.testing.assert_allclose(score[:, 0], [-0.1366965025, 0.4776318891, -0.6367949123], rtol=1e-5)
    np.testing.assert_allclose(slope, score, rtol=1e-4)


def test_the_tilted_mixture_and_the_future_reward():
    """For the reward x at strength 1, in float64: the tilted mixture, log Z, R_t and its gradient."""
    reward = oracle.Linear(jnp.ones(1))
    tilted, log_z = oracle.tilted(MIXTURE, reward, 1.0)
    np.testing.assert_allclose(jnp.exp(tilted.log_weights), (0.0321937546, 0.2249654539, 0.7428407916), rtol=1e-4)
    np.testing.assert_allclose(tilted.means[:, 0], (-1.75, 0.66, 2.36), rtol=1e-5)
    np.testing.assert_allclose(tilted.variances, (0.25, 0.16, 0.36), rtol=1e-5)
    assert float(log_z) == pytest.approx(0.8678356226, abs=1e-5)

    @jax.jit
    def future(x):
        rewards = oracle.future_reward(MIXTURE, reward, 1.0, x, ALPHA, SIGMA)
        return jnp.sum(rewards), rewards

    slope, rewards = jax.grad(future, has_aux=True)(POINTS)
    np.testing.assert_allclose(rewards, (-1.802784727, 0.4361887086, 1.8120168543), atol=1e-5)
    np.testing.assert_allclose(slope[:, 0], (0.673120073, 0.9022985466, 0.9551416742), atol=1e-4)
    np.testing.assert_allclose(denoised(tilted, POINTS)[1] - denoised(MIXTURE, POINTS)[1], slope, atol=1e-4)


def test_mixtures_in_several_dimensions():
    rng = np.random.default_rng(0)
    mixture = oracle.mixture([0.3, 0.7], rng.normal(size=(2, 5)), [0.2, 0.5])
    x = rng.normal(size=(4, 5)).astype(np.float32)
    # E[x_0 | x_t = x, k] = (sigma^2 mean_k + alpha variance_k x) / (alpha^2 variance_k + sigma^2).
    means, variances = np.asarray(mixture.means)[None], np.asarray(mixture.variances)[None, :, None]
    conditional = (SIGMA**2 * means + ALPHA * variances * x[:, None]) / (ALPHA**2 * variances + SIGMA**2)
    probs = np.exp(oracle.log_responsibilities(mixture, jnp.asarray(x), ALPHA, SIGMA))
    clean, score, slope = denoised(mixture, jnp.asarray(x))
    np.testing.assert_allclose(clean, np.einsum("bk,bkd->bd", probs / probs.sum(1)[:, None], conditional), atol=1e-5)
    np.testing.assert_allclose(slope, score, atol=1e-4)
    reward = oracle.Linear(jnp.asarray(rng.normal(size=5), jnp.float32), 0.3)
    _, log_z = oracle.tilted(mixture, reward, 0.5)
    rewards = np.asarray(reward(oracle.draw(jax.random.key(0), mixture, 100_000)))
    assert np.log(np.mean(np.exp(0.5 * rewards))) == pytest.approx(float(log_z), abs=0.03)


def test_draws_have_the_moments_of_the_mixture():
    x = np.asarray(oracle.draw(jax.random.key(0), MIXTURE, 100_000))
    assert x.mean() == pytest.approx(-0.45, abs=0.02)
    second = 0.5 * (4 + 0.25) + 0.3 * (0.25 + 0.16) + 0.2 * (4 + 0.36)
    assert (x**2).mean() == pytest.approx(second, rel=0.02)
