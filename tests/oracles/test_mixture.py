"""Gaussian mixtures: scores, tilted mixtures and future rewards; worked examples and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles import mixture as oracle

MIXTURE = oracle.mixture([0.5, 0.3, 0.2], [-2, 0.5, 2], np.array([0.5, 0.4, 0.6]) ** 2)
POINTS, ALPHA, SIGMA = jnp.array([[-1.5], [0.0], [1.5]]), 0.8, 0.6
LINEAR = oracle.Linear(jnp.ones(1))
QUADRATIC = oracle.Quadratic(jnp.ones(1), 0.5**0.5)
# Reward, strength, R_t, its gradient, weights, means and variances of the tilted mixture, and log Z, in float64.
WORKED = {
    "linear": (
        LINEAR,
        1.0,
        (-1.802784727, 0.4361887086, 1.8120168543),
        (0.673120073, 0.9022985466, 0.9551416742),
        (0.0321937546, 0.2249654539, 0.7428407916),
        (-1.75, 0.66, 2.36),
        (0.25, 0.16, 0.36),
        0.8678356226,
    ),
    "quadratic": (
        QUADRATIC,
        1.0,
        (-5.0730919379, -0.5288838757, -0.5478781655),
        (4.0967994835, 0.7764979386, -0.7002764493),
        (0.0033470457, 0.7146373474, 0.2820156069),
        (-1, 0.6212121212, 1.5813953488),
        (0.1666666667, 0.1212121212, 0.2093023256),
        -1.1962025406,
    ),
    "quadratic, strong": (
        QUADRATIC,
        5.0,
        (-7.0587285063, -1.3159878684, -1.250082906),
        (5.5413207129, 1.2350217673, -1.2239714141),
        (4.7572e-6, 0.7853132458, 0.2146819969),
        (0.1428571429, 0.8076923077, 1.2173913043),
        (0.0714285714, 0.0615384615, 0.0782608696),
        -1.9208251561,
    ),
}


def test_the_exact_denoiser_and_score():
    clean = oracle.clean(MIXTURE, POINTS, ALPHA, SIGMA)
    np.testing.assert_allclose(clean[:, 0], [-1.9365134261, 0.2149343501, 1.5884422895], rtol=2e-6)
    score = oracle.score(MIXTURE, POINTS, ALPHA, SIGMA)
    np.testing.assert_allclose(score[:, 0], [-0.1366965025, 0.4776318891, -0.6367949123], rtol=1e-5)
    slope = jax.grad(lambda x: jnp.sum(oracle.log_density(MIXTURE, x, ALPHA, SIGMA)))(POINTS)
    np.testing.assert_allclose(slope, score, rtol=1e-4)


@pytest.mark.parametrize("case", WORKED)
def test_tilted_mixtures_and_future_rewards(case):
    reward, strength, value, slope, weights, means, variances, constant = WORKED[case]
    tilted, log_z = oracle.tilted(MIXTURE, reward, strength)
    np.testing.assert_allclose(jnp.exp(tilted.log_weights), weights, rtol=1e-4)
    np.testing.assert_allclose(tilted.means[:, 0], means, rtol=1e-5)
    np.testing.assert_allclose(tilted.variances, variances, rtol=1e-5)
    assert float(log_z) == pytest.approx(constant, abs=1e-5)

    def future(x):
        return oracle.future_reward(MIXTURE, reward, strength, x, ALPHA, SIGMA)

    np.testing.assert_allclose(future(POINTS), value, atol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda x: jnp.sum(future(x)))(POINTS)[:, 0], slope, atol=1e-4)
    difference = oracle.score(tilted, POINTS, ALPHA, SIGMA) - oracle.score(MIXTURE, POINTS, ALPHA, SIGMA)
    np.testing.assert_allclose(difference[:, 0], slope, atol=1e-4)


def test_mixtures_in_several_dimensions():
    rng = np.random.default_rng(0)
    mixture = oracle.mixture([0.3, 0.7], rng.normal(size=(2, 5)), [0.2, 0.5])
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    # E[x_0 | x_t = x, k] = (sigma^2 mean_k + alpha variance_k x) / (alpha^2 variance_k + sigma^2).
    scaled = ALPHA * mixture.variances[None, :, None] * x[:, None]
    means = (SIGMA**2 * mixture.means[None] + scaled) / (ALPHA**2 * mixture.variances + SIGMA**2)[None, :, None]
    probs = jax.nn.softmax(oracle.log_responsibilities(mixture, x, ALPHA, SIGMA), axis=1)
    np.testing.assert_allclose(
        oracle.clean(mixture, x, ALPHA, SIGMA), jnp.einsum("bk,bkd->bd", probs, means), atol=1e-5
    )
    slope = jax.grad(lambda x: jnp.sum(oracle.log_density(mixture, x, ALPHA, SIGMA)))(x)
    np.testing.assert_allclose(slope, oracle.score(mixture, x, ALPHA, SIGMA), atol=1e-4)
    reward = oracle.Linear(jnp.asarray(rng.normal(size=5), jnp.float32), 0.3)
    _, log_z = oracle.tilted(mixture, reward, 0.5)
    rewards = reward(oracle.draw(jax.random.key(0), mixture, 100_000))
    assert float(jax.nn.logsumexp(0.5 * rewards) - np.log(100_000)) == pytest.approx(float(log_z), abs=0.03)


def test_draws_have_the_moments_of_the_mixture():
    x = oracle.draw(jax.random.key(0), MIXTURE, 100_000)[:, 0]
    assert float(x.mean()) == pytest.approx(-0.45, abs=0.02)
    second = 0.5 * (4 + 0.25) + 0.3 * (0.25 + 0.16) + 0.2 * (4 + 0.36)
    assert float((x**2).mean()) == pytest.approx(second, rel=0.02)
