"""Guides away from lookahead samples of low reward, the sample-based negatives of arXiv 2602.03211 (Table 7)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.lidar import HIGHEST, Lookahead, kernel_logits
from diffusion.sampling.gaussian.sampler import Guide, Predict, flat, guide
from diffusion.sampling.gaussian.solvers import GaussianGrid
from diffusion.types import Number

# A change of the clean estimates of one prompt, from its lookahead samples, the states, and the clean estimates.
Change = Callable[[Float[Array, "n D"], Float[Array, "N D"], Float[Array, "N D"], GaussianGrid], Float[Array, "N D"]]


def worst(lookahead: Lookahead, count: int) -> Lookahead:
    """Return the `count` lookahead samples of the lowest reward of each prompt, the lowest first.

    Raises:
      ValueError: if there are fewer than `count` samples.
    """
    particles = lookahead.rewards.shape[-1]
    if not 1 <= count <= particles:
        raise ValueError(
            f"negatives.count: must lie in 1 .. {particles}, the lookahead samples of a prompt, not {count}"
        )
    lowest, chosen = jax.lax.top_k(-lookahead.rewards, count)
    return Lookahead(jnp.take_along_axis(lookahead.samples, chosen[..., None], axis=-2), -lowest)


def kernel_mean(
    samples: Float[Array, "n D"], x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, "N D"]:
    """Return sum_i w_i(x) X_i with w = softmax(k), the mean of x_0 given x under the lookahead samples alone."""
    weights = jax.nn.softmax(kernel_logits(samples, x, alpha, sigma), axis=1)
    return jnp.matmul(weights, samples, precision=HIGHEST)


def repulsion(samples: Float[Array, "n D"], clean: Float[Array, "N D"], radius: Number) -> Float[Array, "N D"]:
    """Return sum_i relu(radius / ||x_0 - X_i|| - 1) (x_0 - X_i), which moves x_0 out of the ball around X_i.

    It is exactly 0 outside of all balls, and 0 at X_i, where there is no direction. Differences are taken sample by
    sample, because those of squared norms lose all digits near X_i, and all of them at once would be [N, n, D].
    """

    def add(total, sample):
        away = clean - sample[None]
        distance = jnp.sqrt(jnp.maximum(jnp.sum(away**2, axis=1, keepdims=True), 1e-30))
        return total + jnp.maximum(radius / distance - 1, 0) * away, None

    return jax.lax.scan(add, jnp.zeros_like(clean), samples)[0]


def changed(lookahead: Lookahead, scale: Number, change: Change) -> Guide:
    """Return the guide x_0 <- x_0 + scale change, for a batch of P groups of states, one group per prompt."""

    @guide
    def rule(predict: Predict, x: Data, row, carry):
        # The barrier keeps the compiler from fusing prediction and change, which would round differently.
        clean, carry = jax.lax.optimization_barrier(predict(x, row, carry))
        shape = (len(lookahead.rewards), -1, lookahead.samples.shape[-1])
        states, estimates = (flat(data).astype(jnp.float32).reshape(shape) for data in (x, clean))
        changes = jax.vmap(lambda samples, x, clean: change(samples, x, clean, row))(
            lookahead.samples, states, estimates
        )
        delta = (scale * row.guided * changes).astype(clean.dtype)
        return clean + delta.reshape(clean.shape), carry

    return rule


def safe_denoiser(lookahead: Lookahead, scale: Number, strength: Number) -> Guide:
    """Return the guide x_0 <- x_0 + scale strength (x_0 - sum_i w_i X_i), away from the mean of the negatives.

    w = softmax(-||x - alpha X||^2 / 2 sigma^2) over the samples of `lookahead`, which are those to avoid (see `worst`);
    rewards are not read. The rule is the safe denoiser (Safe-D), a baseline of LiDAR (arXiv 2602.03211, Table 7, with a
    scale of 1, 15 samples and a strength of 0.05). It acts in the guided steps of the grid; with a scale of 0 the
    prediction is bitwise that of the unguided sampler.
    """

    def change(samples, x, clean, row):
        return strength * (clean - kernel_mean(samples, x, row.alpha, row.sigma))

    return changed(lookahead, scale, change)


def sparse_repellency(lookahead: Lookahead, scale: Number, radius: Number) -> Guide:
    """Return the guide x_0 <- x_0 + scale sum_i relu(radius / ||x_0 - X_i|| - 1) (x_0 - X_i).

    X_i are the samples of `lookahead`, which are those to avoid (see `worst`); rewards are not read. The rule is sparse
    repellency (SR), a baseline of LiDAR (arXiv 2602.03211, Table 7, with a scale of 1, 40 samples and a radius of 100).
    It acts in the guided steps of the grid; where all samples are farther than `radius`, or with a scale of 0, the
    prediction is bitwise that of the unguided sampler.
    """
    return changed(lookahead, scale, lambda samples, x, clean, row: repulsion(samples, clean, radius))
