"""Sub-token marginals of a softmax over tokens: log-masses of the sets of tokens that agree on some sub-tokens.

The code of a token is one integer of bit fields. For any number of sub-tokens the carry-over filter is therefore one
exclusive-or, one mask and one comparison, which are fused into the sums: there is no gather, and no array of shape
[B, L, C] besides the logits and their gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from diffusion.categorical import EXCLUDED
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.types import Logits

# Smaller sums are outside float32's normal range.
SMALLEST = 1e-37


def agrees(codes: UInt32[Array, " C"], value: UInt32[Array, "..."], bits: UInt32[Array, "..."]) -> Bool[Array, "... C"]:
    """Whether each code equals `value` in the bits of the mask `bits`."""
    codes = codes.reshape((1,) * value.ndim + codes.shape)
    return ((codes ^ value[..., None]) & bits[..., None]) == 0


def carry_over(logits: Logits, codec: SubtokenCodec, known: Int[Array | np.ndarray, "B L l"]) -> Float[Array, "B L C"]:
    """Return float32 logits in which tokens that contradict an unmasked sub-token have no mass (MDM-Prime)."""
    logits = logits[..., : codec.vocabulary].astype(jnp.float32)
    return jnp.where(agrees(jnp.asarray(codec.packed), *codec.pack(known)), logits, EXCLUDED)


def log_masses(
    logits: Logits,
    codec: SubtokenCodec,
    known: Int[Array | np.ndarray, "B L l"],
    clean: Int[Array | np.ndarray, "B L l"],
    fields: UInt32[Array, "#B #L M"],
) -> Float[Array, "B L M"]:
    """Compute log p(tokens that agree with `clean` on the bits fields[m]), in nats, float32, for M sets per position.

    p is the softmax over the tokens that agree with the unmasked sub-tokens of `known`. The bits of one sub-token give
    its marginal, all bits give the token itself, and other subsets of sub-tokens are allowed as well; every set must
    contain a token. The gradient with respect to logit v is p(v | set) - p(v), and 0 for a token that contradicts
    `known`.
    """
    tokens = codec.decode(clean)
    return _log_masses(
        logits[..., : codec.vocabulary],
        jnp.asarray(codec.packed),
        *codec.pack(known),
        codec.pack(clean)[0],
        jnp.minimum(tokens, codec.vocabulary - 1),
        jnp.broadcast_to(fields, (*tokens.shape, fields.shape[-1])),
    )


@jax.custom_vjp
def _log_masses(logits, codes, value, known, target, token, fields):
    return _forward(logits, codes, value, known, target, token, fields)[0]


def _forward(logits, codes, value, known, target, token, fields):
    filtered = jnp.where(agrees(codes, value, known), logits.astype(jnp.float32), EXCLUDED)
    top = jax.lax.stop_gradient(jnp.max(filtered, axis=-1))
    exps = jnp.exp(filtered - top[..., None])
    total = jnp.sum(exps, axis=-1)
    sets = [
        jnp.sum(jnp.where(agrees(codes, target, fields[..., index]), exps, 0), axis=-1)
        for index in range(fields.shape[-1])
    ]
    masses = jnp.stack(sets, axis=-1)
    # Where a sum underflows, the mass of the clean token replaces that of its set: a lower bound.
    token_logs = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0].astype(jnp.float32) - top
    logs = jnp.where(masses > SMALLEST, jnp.log(jnp.maximum(masses, SMALLEST)), token_logs[..., None])
    residuals = (logits, codes, value, known, target, token, fields, top, total, masses)
    return logs - jnp.log(total)[..., None], residuals


def _backward(residuals, cotangent):
    logits, codes, value, known, target, token, fields, top, total, masses = residuals
    allowed = agrees(codes, value, known)
    exps = jnp.where(allowed, jnp.exp(logits.astype(jnp.float32) - top[..., None]), 0)
    in_range = masses > SMALLEST
    shares = jnp.where(in_range, cotangent / jnp.maximum(masses, SMALLEST), 0)
    factor = -(jnp.sum(cotangent, axis=-1) / total)[..., None]
    for index in range(fields.shape[-1]):
        factor = factor + jnp.where(agrees(codes, target, fields[..., index]), shares[..., index, None], 0)
    one_hot = jax.nn.one_hot(token, logits.shape[-1], dtype=jnp.bool_)
    token_cotangent = jnp.sum(jnp.where(in_range, 0, cotangent), axis=-1)[..., None]
    gradient = exps * factor + jnp.where(one_hot, token_cotangent, 0)
    zeros = [np.zeros(array.shape, jax.dtypes.float0) for array in (codes, value, known, target, token, fields)]
    return (gradient.astype(logits.dtype), *zeros)


_log_masses.defvjp(_forward, _backward)
