"""LiDAR guidance: a closed-form guide from lookahead samples and their rewards (arXiv 2602.03211, Theorem 3.3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.sampler import Guide, Predict, flat, guide
from diffusion.types import Number

HIGHEST = jax.lax.Precision.HIGHEST


class Lookahead(NamedTuple):
    """Lookahead samples of P prompts, n per prompt, as vectors in the space of the diffusion, and their rewards.

    Functions of the states of one prompt take the n samples of that prompt.
    """

    samples: Float[Array, "*P n D"]
    rewards: Float[Array, "*P n"]


def kernel_logits(
    samples: Float[Array, "n D"], x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, "N n"]:
    """Return k_i = -||x - alpha X_i||^2 / (2 sigma^2) in nats, up to a term equal for all i, in full float32 precision.

    At D = 10^4 the terms are of the order of 10^4 nats, and a product in bfloat16 or TF32 would change the weights.
    """
    inner = jnp.matmul(x, samples.T, precision=HIGHEST)
    squares = jnp.sum(samples**2, axis=1)
    return (alpha * inner - alpha**2 / 2 * squares[None]) / sigma**2


def future_reward(
    lookahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, " N"]:
    """Return R(x) = LSE_i(k_i + strength r_i) - LSE_i(k_i), an estimate of log E[exp(strength r(x_0)) | x]."""
    logits, best = kernel_logits(lookahead.samples, x, alpha, sigma), jnp.max(lookahead.rewards)
    tilted = logits + strength * (lookahead.rewards - best)[None]
    return strength * best + jax.nn.logsumexp(tilted, axis=1) - jax.nn.logsumexp(logits, axis=1)


def particle_weights(
    lookahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> tuple[Float[Array, "N n"], Float[Array, "N n"]]:
    """Return w^r = softmax(k + strength r) and w = softmax(k) over the lookahead samples, for each state.

    The largest reward is subtracted first, so that equal rewards give bitwise equal weights.
    """
    logits = kernel_logits(lookahead.samples, x, alpha, sigma)
    tilted = logits + strength * (lookahead.rewards - jnp.max(lookahead.rewards))[None]
    return jax.nn.softmax(tilted, axis=1), jax.nn.softmax(logits, axis=1)


def shift(
    lookahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, "N D"]:
    """Return M(x) = sum_i (w^r_i - w_i) X_i, which is sigma^2 / alpha times the gradient of R.

    It is computed as a difference of two means, because compilers may subtract the weights before rounding them.
    """
    both = jnp.stack(particle_weights(lookahead, strength, x, alpha, sigma))
    tilted_mean, mean = jnp.matmul(both, lookahead.samples, precision=HIGHEST)
    return tilted_mean - mean


def lookahead_guide(lookahead: Lookahead, strength: Number, scale: Number) -> Guide:
    """Return the guide x_0 <- x_0 + scale M(x), for a batch of P groups of states, one group per prompt.

    In epsilon this is epsilon - scale sigma grad R (arXiv 2602.03211, Theorem 3.3); it needs no gradient of a network,
    and acts in the guided steps of the grid. With one sample or a scale of 0 the prediction is bitwise that of the
    unguided sampler; with equal rewards or a strength of 0 it is equal up to rounding.
    """

    @guide
    def rule(predict: Predict, x: Data, row, carry):
        # The barrier keeps the compiler from fusing prediction and shift, which would round differently.
        clean, carry = jax.lax.optimization_barrier(predict(x, row, carry))
        groups = flat(x).reshape(len(lookahead.rewards), -1, lookahead.samples.shape[-1]).astype(jnp.float32)
        shifts = jax.vmap(lambda particles, x: shift(particles, strength, x, row.alpha, row.sigma))
        delta = (scale * row.guided * shifts(lookahead, groups)).astype(clean.dtype)
        return clean + delta.reshape(clean.shape), carry

    return rule
