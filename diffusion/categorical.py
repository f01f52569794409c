"""Logits to log-probabilities over real tokens: what losses, estimators and samplers share."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.types import Logits, Tokens

# Finite, so that gradients through an excluded class stay finite; far below any logit that a network emits.
EXCLUDED = -1e30


def exclude(logits: Logits, vocabulary: int) -> Logits:
    """Cast to float32 and give classes `vocabulary` and above (the mask, padding) no mass."""
    allowed = jnp.arange(logits.shape[-1]) < vocabulary
    return jnp.where(jnp.broadcast_to(allowed, logits.shape), logits.astype(jnp.float32), EXCLUDED)


def log_probs(logits: Logits, vocabulary: int) -> Logits:
    """log softmax over the first `vocabulary` classes, in float32 nats."""
    return jax.nn.log_softmax(exclude(logits, vocabulary), axis=-1)


def target_log_probs(logits: Logits, tokens: Tokens, vocabulary: int) -> Float[Array, "B L"]:
    """log p of the given tokens, in float32 nats, without a second [B, L, K] array of log-probabilities.

    Tokens outside the vocabulary (masked or padded positions, which callers weight with 0) read the last class.
    """
    logits = exclude(logits, vocabulary)
    target = jnp.take_along_axis(logits, jnp.minimum(tokens, vocabulary - 1)[..., None], axis=-1)[..., 0]
    return target - jax.nn.logsumexp(logits, axis=-1)
