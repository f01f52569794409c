"""Digit marginals of a softmax over tokens: log-masses of sets of tokens that agree on some digits.

A token's code is one integer of bit fields, so the carry-over filter is one exclusive-or, one mask and one comparison
for any number of digits, fused into the sums: no gather, and no [B, L, C] array beside the logits and their gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from diffusion.categorical import EXCLUDED
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.types import Logits

# Sums below this have left float32's normal range.
SMALLEST = 1e-37


def agrees(codes: UInt32[Array, " C"], value: UInt32[Array, "..."], bits: UInt32[Array, "..."]) -> Bool[Array, "... C"]:
    """Which codes have the given value in the given bits."""
    codes = codes.reshape((1,) * value.ndim + codes.shape)
    return ((codes ^ value[..., None]) & bits[..., None]) == 0


def carry_over(logits: Logits, codec: SubtokenCodec, digits: Int[Array | np.ndarray, "B L l"]) -> Float[Array, "B L C"]:
    """Float32 logits [B, L, C] in which tokens that contradict a known digit have no mass (MDM-Prime, carry-over)."""
    logits = logits[..., : codec.vocabulary].astype(jnp.float32)
    return jnp.where(agrees(jnp.asarray(codec.packed), *codec.pack(digits)), logits, EXCLUDED)


def log_masses(
    logits: Logits,
    codec: SubtokenCodec,
    known: Int[Array | np.ndarray, "B L l"],
    clean: Int[Array | np.ndarray, "B L l"],
    fields: UInt32[Array, "#B #L M"],
) -> Float[Array, "B L M"]:
    """log p(tokens that agree with `clean` on the bits fields[m]) in float32 nats, M sets a position.

    p is the softmax over the tokens that agree with the digits of `known` that are not masked. A set is a digit's
    marginal (that digit's bits), the token itself (all bits), or any subset of digits; some token must be in it. The
    gradient with respect to logit v is p(v | set) - p(v), and 0 for a token that `known` rules out.
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


def _weights(logits, codes, value, known):
    """exp(z - max) of the tokens that are left, in float32, and the maximum."""
    kept = jnp.where(agrees(codes, value, known), logits.astype(jnp.float32), EXCLUDED)
    top = jax.lax.stop_gradient(jnp.max(kept, axis=-1))
    return jnp.exp(kept - top[..., None]), top


def _forward(logits, codes, value, known, target, token, fields):
    weights, top = _weights(logits, codes, value, known)
    total = jnp.sum(weights, axis=-1)
    sets = [
        jnp.sum(jnp.where(agrees(codes, target, fields[..., index]), weights, 0), axis=-1)
        for index in range(fields.shape[-1])
    ]
    masses = jnp.stack(sets, axis=-1)
    # Where a sum underflows the clean token alone stands for its set: a lower bound on the mass.
    alone = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0].astype(jnp.float32) - top
    logs = jnp.where(masses > SMALLEST, jnp.log(jnp.maximum(masses, SMALLEST)), alone[..., None])
    residuals = (logits, codes, value, known, target, token, fields, top, total, masses)
    return logs - jnp.log(total)[..., None], residuals


def _backward(residuals, cotangent):
    logits, codes, value, known, target, token, fields, top, total, masses = residuals
    kept = agrees(codes, value, known)
    weights = jnp.where(kept, jnp.exp(logits.astype(jnp.float32) - top[..., None]), 0)
    sound = masses > SMALLEST
    shares = jnp.where(sound, cotangent / jnp.maximum(masses, SMALLEST), 0)
    factor = -(jnp.sum(cotangent, axis=-1) / total)[..., None]
    for index in range(fields.shape[-1]):
        factor = factor + jnp.where(agrees(codes, target, fields[..., index]), shares[..., index, None], 0)
    own = _is(token, logits.shape[-1])
    rest = jnp.sum(jnp.where(sound, 0, cotangent), axis=-1)[..., None]
    gradient = weights * factor + jnp.where(own, rest, 0)
    zeros = [np.zeros(array.shape, jax.dtypes.float0) for array in (codes, value, known, target, token, fields)]
    return (gradient.astype(logits.dtype), *zeros)


def _is(token, classes):
    """One-hot of tokens, as a comparison."""
    return jnp.arange(classes).reshape((1,) * token.ndim + (classes,)) == token[..., None]


_log_masses.defvjp(_forward, _backward)
