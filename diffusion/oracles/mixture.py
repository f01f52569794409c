"""Mixtures of isotropic Gaussians: exact denoisers, densities at every noise level, and reward-tilted laws.

A set of pictures, each with a little noise, is one too: the picture world's exact model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from diffusion.types import Number

HIGHEST = jax.lax.Precision.HIGHEST


class Mixture(NamedTuple):
    """sum_k weight_k N(mean_k, variance_k I), log-weights up to a constant; arrays, so that it may be parameters."""

    log_weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    variances: Float[Array, " K"]


class Linear(NamedTuple):
    """The reward r(x) = slope . x + offset."""

    slope: Float[Array, " D"]
    offset: float = 0.0

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        return jnp.matmul(x, self.slope, precision=HIGHEST) + self.offset


class Quadratic(NamedTuple):
    """The reward r(x) = -||x - center||^2 / (2 width^2)."""

    center: Float[Array, " D"]
    width: float

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        return -jnp.sum((x - self.center[None]) ** 2, axis=-1) / (2 * self.width**2)


Reward = Linear | Quadratic


def mixture(weights, means, variances) -> Mixture:
    """A mixture from weights that need not sum to 1, means [K] or [K, D], and variances [K]."""
    weights, means, variances = (jnp.asarray(value, jnp.result_type(float)) for value in (weights, means, variances))
    return Mixture(jnp.log(weights / weights.sum()), means.reshape(len(weights), -1), variances)


def log_responsibilities(law: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B K"]:
    """log [weight_k N(x; alpha mean_k, (alpha^2 variance_k + sigma^2) I)], Gaussian constants of 2 pi left out."""
    variance = alpha**2 * law.variances + sigma**2
    inner = jnp.matmul(x, law.means.T, precision=HIGHEST)
    squares = jnp.sum(x**2, axis=1)[:, None] - 2 * alpha * inner + (alpha**2 * jnp.sum(law.means**2, axis=1))[None]
    dimension = law.means.shape[1]
    return (law.log_weights - dimension / 2 * jnp.log(variance))[None] - squares / (2 * variance)[None]


def log_density(law: Mixture, x: Float[Array, "B D"], alpha: Number = 1.0, sigma: Number = 0.0) -> Float[Array, " B"]:
    """log p_t(x) in nats; at alpha = 1, sigma = 0 that of the data."""
    terms = jax.nn.logsumexp(log_responsibilities(law, x, alpha, sigma), axis=1)
    return terms - jax.nn.logsumexp(law.log_weights) - x.shape[1] / 2 * jnp.log(2 * jnp.pi)


def posterior_means(law: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B K D"]:
    """E[x_0 | x_t = x, k] = (sigma^2 mean_k + alpha variance_k x) / (alpha^2 variance_k + sigma^2)."""
    variance = alpha**2 * law.variances + sigma**2
    own = (sigma**2 / variance)[:, None] * law.means
    return own[None] + (alpha * law.variances / variance)[None, :, None] * x[:, None]


def clean(law: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B D"]:
    """E[x_0 | x_t = x], the exact denoiser, without an array [B, K, D]."""
    variance = alpha**2 * law.variances + sigma**2
    shares = jax.nn.softmax(log_responsibilities(law, x, alpha, sigma), axis=1)
    own = jnp.matmul(shares * (sigma**2 / variance)[None], law.means, precision=HIGHEST)
    return own + jnp.sum(shares * (alpha * law.variances / variance)[None], axis=1, keepdims=True) * x


def score(law: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B D"]:
    """The gradient of log p_t, (alpha E[x_0 | x] - x) / sigma^2."""
    return (alpha * clean(law, x, alpha, sigma) - x) / sigma**2


def tilted(law: Mixture, reward: Reward, strength: float) -> tuple[Mixture, Array]:
    """The law proportional to p(x) exp(strength r(x)), again a mixture, and log Z = log E_p[exp(strength r)]."""
    variances, means = law.variances, law.means
    if isinstance(reward, Linear):
        moved = means + strength * variances[:, None] * reward.slope[None]
        gain = strength * reward(means) + strength**2 * jnp.sum(reward.slope**2) * variances / 2
    else:
        pull = strength / reward.width**2
        shrunk = 1 + pull * variances
        moved = (means + (pull * variances)[:, None] * reward.center[None]) / shrunk[:, None]
        distance = jnp.sum((means - reward.center[None]) ** 2, axis=1)
        gain = -means.shape[1] / 2 * jnp.log(shrunk) - pull * distance / (2 * shrunk)
        variances = variances / shrunk
    log_weights = law.log_weights + gain
    constant = jax.nn.logsumexp(log_weights)
    return Mixture(log_weights - constant, moved, variances), constant - jax.nn.logsumexp(law.log_weights)


def future_reward(
    law: Mixture, reward: Reward, strength: float, x: Float[Array, "B D"], alpha: Number, sigma: Number
) -> Float[Array, " B"]:
    """log E[exp(strength r(x_0)) | x_t = x] = log p_t^r(x) - log p_t(x) + log Z (LiDAR, arXiv 2602.03211, Eq. 4)."""
    other, constant = tilted(law, reward, strength)
    return log_density(other, x, alpha, sigma) - log_density(law, x, alpha, sigma) + constant


def draw(key: Key[Array, ""], law: Mixture, count: int) -> Float[Array, "N D"]:
    """Independent draws from the mixture."""
    choose, noise = jax.random.split(key)
    which = jax.random.categorical(choose, law.log_weights, shape=(count,))
    spread = jnp.sqrt(law.variances)[which][:, None]
    return law.means[which] + spread * jax.random.normal(noise, (count, law.means.shape[1]), law.means.dtype)
