"""LiDAR guidance of uniform-state diffusion: a closed-form tilt of the reverse step by rewards of lookahead samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.processes.uniform import LOWEST, TINY, UniformDiffusion
from diffusion.types import Number, Symbols

KERNELS = ("token", "sequence")
HIGHEST = jax.lax.Precision.HIGHEST
# guide(state z_t, log p(z_s | z_t) of its positions, level of z_t, level of z_s): the guided logits of z_s.
Guide = Callable[[Symbols, Float[Array, "B N S"], Float[Array, ""], Float[Array, ""]], Float[Array, "B N S"]]


class Lookahead(NamedTuple):
    """The n lookahead samples of all states, and their rewards."""

    samples: Int[Array | np.ndarray, "n L"]
    rewards: Float[Array | np.ndarray, " n"]


def lookahead_guide(
    process: UniformDiffusion, lookahead: Lookahead, strength: Number, scale: Number, kernel: str = "token"
) -> Guide:
    """Return the guide log p(z_s^l = v | z_t) + scale R(l, v), toward samples of p(x) exp(strength r(x)).

    A reverse step of the tilted model draws position l from

        p(z_s^l | z_t) E[exp(strength r(x)) | z_s^l, z_t] / E[exp(strength r(x)) | z_t].

    By Bayes' rule the expectation is one over lookahead samples x_i of p that weighs them by the forward kernel alone
    (arXiv 2602.03211, Theorem 3.1), which is a product of f_t(z^l | x^l) = (1 - level) [z^l = x^l] + level / K over
    positions. Up to a constant its logarithm is

        R(l, v) = log sum_i exp(strength r_i) w_il f_s(v | x_i^l) - log sum_i w_il f_s(v | x_i^l).

    "token" has w_il = 1, the published form (arXiv 2602.03211, Appendix A.7, Eq. 54): it weighs a token by the rewards
    of the samples with it at its position, whatever the other positions hold. "sequence", which is inferred, has
    w_il = prod_{m != l} f_t(z_t^m | x_i^m), the weights of the expectation above: given z_s^l, z_t^l tells nothing more
    of x. With samples of p its steps are those of the tilted model, and its limit of many steps is the tilted law; that
    of "token" is not.

    With a scale or strength of 0, one sample, or equal rewards, R is 0 and nothing changes.

    Raises:
      ValueError: for an unknown kernel.
    """
    if kernel not in KERNELS:
        raise ValueError(f"sample.uniform.lookahead.kernel: unknown {kernel!r}; known: {', '.join(KERNELS)}")
    samples, vocabulary = jnp.asarray(lookahead.samples), process.vocabulary
    tilt = strength * (lookahead.rewards - jnp.max(lookahead.rewards))
    logs = jnp.stack([tilt, jnp.zeros_like(tilt)])
    fixed = by_token(jnp.exp(logs), samples, vocabulary) if kernel == "token" else None

    def guide(
        state: Symbols, log_probs: Float[Array, "B N S"], level: Float[Array, ""], next_level: Float[Array, ""]
    ) -> Float[Array, "B N S"]:
        sums = sequence_sums(logs, state, samples, level, vocabulary) if fixed is None else fixed[:, :, None]
        small = jnp.maximum(next_level, LOWEST)
        mixed = (1 - small) * sums + small / vocabulary * jnp.sum(sums, axis=-1, keepdims=True)
        tilted, plain = jnp.moveaxis(jnp.log(jnp.maximum(mixed, TINY)), 0, 2)
        return log_probs + scale * (tilted - plain)

    return guide


def sequence_sums(
    logs: Float[Array, "2 n"], state: Symbols, samples: Int[Array, "n L"], level: Float[Array, ""], vocabulary: int
) -> Float[Array, "L 2 B K"]:
    """Return the sums of u_i w_il [x_i^l = v] over samples for both weights log u, up to a factor for each state.

    The kernel of all positions depends on the number of equal ones alone. Without position l it is divided by
    f_t(z^l | x_i^l), which has one value in each of the sums.
    """
    other = jnp.maximum(level, LOWEST) / vocabulary
    same = 1 - level + other
    matches = jnp.sum(state[:, None] == samples[None], axis=-1)
    kernels = logs[:, None] + matches[None] * (jnp.log(same) - jnp.log(other))
    weights = jnp.exp(kernels - jnp.max(kernels, axis=-1, keepdims=True))
    sums = by_token(weights.reshape(-1, len(samples)), samples, vocabulary)
    kept = jax.nn.one_hot(state.T, vocabulary, dtype=bool)[:, None]
    return sums.reshape(len(sums), 2, len(state), vocabulary) * jnp.where(kept, other / same, 1.0)


def by_token(weights: Float[Array, "R n"], samples: Int[Array, "n L"], vocabulary: int) -> Float[Array, "L R K"]:
    """Return the summed weights of the samples with each token, position by position: no array is [n, L, K]."""

    def summed(column: Int[Array, " n"]) -> Float[Array, "R K"]:
        return jnp.matmul(weights, jax.nn.one_hot(column, vocabulary, dtype=jnp.float32), precision=HIGHEST)

    return jax.lax.map(summed, samples.T)
