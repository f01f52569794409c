"""Mixtures of isotropic Gaussians: exact denoisers, densities at all noise levels, and tilting by rewards.

A finite set of images, each with a small variance, is a mixture as well.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from diffusion.types import Number

HIGHEST = jax.lax.Precision.HIGHEST


class Mixture(NamedTuple):
    """The mixture sum_k weight_k N(mean_k, variance_k I), with log-weights up to a constant; a pytree of arrays."""

    log_weights: Float[Array, " K"]
    means: Float[Array, "K D"]
    variances: Float[Array, " K"]


class Linear(NamedTuple):
    """The reward r(x) = slope . x + offset."""

    slope: Float[Array, " D"]
    offset: float = 0.0

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        return jnp.matmul(x, self.slope, precision=HIGHEST) + self.offset


def mixture(weights, means, variances) -> Mixture:
    """Create a mixture from weights [K], which are normalized, means [K] or [K, D], and variances [K]."""
    weights, means, variances = (jnp.asarray(value, jnp.result_type(float)) for value in (weights, means, variances))
    return Mixture(jnp.log(weights / weights.sum()), means.reshape(len(weights), -1), variances)


def log_responsibilities(mixture: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B K"]:
    """Compute log [weight_k N(x; alpha mean_k, (alpha^2 variance_k + sigma^2) I)], without the factor of 2 pi."""
    variance = alpha**2 * mixture.variances + sigma**2
    inner = jnp.matmul(x, mixture.means.T, precision=HIGHEST)
    squares = jnp.sum(x**2, axis=1)[:, None] - 2 * alpha * inner + (alpha**2 * jnp.sum(mixture.means**2, axis=1))[None]
    dimension = mixture.means.shape[1]
    return (mixture.log_weights - dimension / 2 * jnp.log(variance))[None] - squares / (2 * variance)[None]


def log_density(
    mixture: Mixture, x: Float[Array, "B D"], alpha: Number = 1.0, sigma: Number = 0.0
) -> Float[Array, " B"]:
    """Compute log p_t(x) of the noisy data, in nats; by default log p(x) of the data."""
    terms = jax.nn.logsumexp(log_responsibilities(mixture, x, alpha, sigma), axis=1)
    return terms - jax.nn.logsumexp(mixture.log_weights) - x.shape[1] / 2 * jnp.log(2 * jnp.pi)


def clean(mixture: Mixture, x: Float[Array, "B D"], alpha: Number, sigma: Number) -> Float[Array, "B D"]:
    """Compute the exact denoiser E[x_0 | x_t = x], without an array of shape [B, K, D]."""
    variance = alpha**2 * mixture.variances + sigma**2
    probs = jax.nn.softmax(log_responsibilities(mixture, x, alpha, sigma), axis=1)
    mean = jnp.matmul(probs * (sigma**2 / variance)[None], mixture.means, precision=HIGHEST)
    return mean + jnp.sum(probs * (alpha * mixture.variances / variance)[None], axis=1, keepdims=True) * x


def tilted(mixture: Mixture, reward: Linear, strength: float) -> tuple[Mixture, Array]:
    """Compute the distribution p(x) exp(strength r(x)) / Z, again a mixture, and log Z = log E_p[exp(strength r)]."""
    variances, means = mixture.variances, mixture.means
    new_means = means + strength * variances[:, None] * reward.slope[None]
    gain = strength * reward(means) + strength**2 * jnp.sum(reward.slope**2) * variances / 2
    log_weights = mixture.log_weights + gain
    constant = jax.nn.logsumexp(log_weights)
    return Mixture(log_weights - constant, new_means, variances), constant - jax.nn.logsumexp(mixture.log_weights)


def future_reward(
    mixture: Mixture, reward: Linear, strength: float, x: Float[Array, "B D"], alpha: Number, sigma: Number
) -> Float[Array, " B"]:
    """Compute log E[exp(strength r(x_0)) | x_t = x] = log p_t^r(x) - log p_t(x) + log Z.

    p_t^r is the noisy density of the tilted distribution (LiDAR, arXiv 2602.03211, Eq. 4).
    """
    tilted_mixture, constant = tilted(mixture, reward, strength)
    return log_density(tilted_mixture, x, alpha, sigma) - log_density(mixture, x, alpha, sigma) + constant


def draw(key: Key[Array, ""], mixture: Mixture, count: int) -> Float[Array, "N D"]:
    """Draw `count` independent samples of the mixture."""
    component_key, noise_key = jax.random.split(key)
    index = jax.random.categorical(component_key, mixture.log_weights, shape=(count,))
    deviation = jnp.sqrt(mixture.variances)[index][:, None]
    return mixture.means[index] + deviation * jax.random.normal(
        noise_key, (count, mixture.means.shape[1]), mixture.means.dtype
    )
