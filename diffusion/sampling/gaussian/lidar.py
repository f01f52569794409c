"""LiDAR: lookahead samples and their rewards as a closed-form guide (arXiv 2602.03211, Theorem 3.3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.sampler import Guide, Predict, flat
from diffusion.types import Number

HIGHEST = jax.lax.Precision.HIGHEST


class Lookahead(NamedTuple):
    """Cheap clean samples of P prompts, n each, as vectors in the space of the diffusion, and what they are worth.

    What takes the states of one prompt takes its n alone.
    """

    samples: Float[Array, "*P n D"]
    rewards: Float[Array, "*P n"]


def kernel_logits(
    samples: Float[Array, "n D"], x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, "N n"]:
    """-||x - alpha X_i||^2 / (2 sigma^2) [N, n] without the term that all i share, in float32 at full precision.

    At D = 10^4 the terms are of the order of 10^4 nats: a product in bfloat16 or TF32 would change the weights.
    """
    inner = jnp.matmul(x, samples.T, precision=HIGHEST)
    squares = jnp.sum(samples**2, axis=1)
    return (alpha * inner - alpha**2 / 2 * squares[None]) / sigma**2


def future_reward(
    ahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, " N"]:
    """R(x) = LSE_i(k_i + strength r_i) - LSE_i(k_i), the lookahead estimate of log E[exp(strength r(x_0)) | x]."""
    logits, best = kernel_logits(ahead.samples, x, alpha, sigma), jnp.max(ahead.rewards)
    raised = logits + strength * (ahead.rewards - best)[None]
    return strength * best + jax.nn.logsumexp(raised, axis=1) - jax.nn.logsumexp(logits, axis=1)


def weights(
    ahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> tuple[Float[Array, "N n"], Float[Array, "N n"]]:
    """softmax(k + strength r) and softmax(k), of each state over the lookahead samples.

    Rewards count from the best one, so that equal rewards leave the very same numbers.
    """
    logits = kernel_logits(ahead.samples, x, alpha, sigma)
    raised = logits + strength * (ahead.rewards - jnp.max(ahead.rewards))[None]
    return jax.nn.softmax(raised, axis=1), jax.nn.softmax(logits, axis=1)


def shift(
    ahead: Lookahead, strength: Number, x: Float[Array, "N D"], alpha: Number, sigma: Number
) -> Float[Array, "N D"]:
    """M = sum_i (w^r_i - w_i) X_i, which is sigma^2 / alpha times the gradient of R.

    A difference of two means: of weights compilers take the difference before these are rounded.
    """
    both = jnp.stack(weights(ahead, strength, x, alpha, sigma))
    with_reward, without = jnp.matmul(both, ahead.samples, precision=HIGHEST)
    return with_reward - without


def lookahead_guide(ahead: Lookahead, strength: Number, scale: Number) -> Guide:
    """x_0 <- x_0 + scale M(x) where the grid says so, for a batch of P groups of states, one group a prompt.

    With scale s that is epsilon - s sigma gradient R, after classifier-free guidance and without back-propagation. One
    sample or a scale of zero leave the prediction as it is, bit for bit; equal rewards or no strength, to rounding.
    """

    def guide(predict: Predict) -> Predict:
        def guided(x: Data, row, carry):
            # The barrier keeps the compiler from mixing the two, so that a push of zero is no push at all.
            clean, carry = jax.lax.optimization_barrier(predict(x, row, carry))
            groups = flat(x).reshape(len(ahead.rewards), -1, ahead.samples.shape[-1]).astype(jnp.float32)
            moved = jax.vmap(lambda own, x: shift(own, strength, x, row.alpha, row.sigma))(ahead, groups)
            push = (scale * row.guided * moved).astype(clean.dtype)
            return clean + push.reshape(clean.shape), carry

        return guided

    return guide
