"""Categorical distributions and selection of positions, for losses, estimators and samplers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.rng import categorical, fold
from diffusion.types import Keys, Logits, Tokens

# Finite, so that gradients through an excluded class stay finite; far below any logit that a network emits.
EXCLUDED = -1e30


def exclude(logits: Float[Array, "*shape K"], vocabulary: int) -> Float[Array, "*shape K"]:
    """Return float32 logits in which classes `vocabulary` and above (the mask, padding) have no mass."""
    allowed = jnp.arange(logits.shape[-1]) < vocabulary
    return jnp.where(jnp.broadcast_to(allowed, logits.shape), logits.astype(jnp.float32), EXCLUDED)


def log_probs(logits: Float[Array, "*shape K"], vocabulary: int) -> Float[Array, "*shape K"]:
    """Compute log softmax over the first `vocabulary` classes, in nats, float32."""
    return jax.nn.log_softmax(exclude(logits, vocabulary), axis=-1)


def target_log_probs(logits: Logits, tokens: Tokens, vocabulary: int) -> Float[Array, "B L"]:
    """Compute log p of `tokens`, in nats per token, float32, without a second [B, L, K] array of log-probabilities.

    Tokens outside the vocabulary (masks and padding, to which callers give weight 0) read the last class.
    """
    logits = exclude(logits, vocabulary)
    target = jnp.take_along_axis(logits, jnp.minimum(tokens, vocabulary - 1)[..., None], axis=-1)[..., 0]
    return target - jax.nn.logsumexp(logits, axis=-1)


def draw_two_stage(keys: Keys, logits: Logits) -> Tokens:
    """Draw from softmax(logits): one of about sqrt(K) blocks of classes, then one class of that block.

    The distribution is that of one draw over all classes, up to float32 rounding and without truncated tails. The
    draw takes 2 sqrt(K) random numbers per position instead of K; generating them dominates its cost.
    """
    classes = logits.shape[-1]
    width = int(classes**0.5) + 1
    blocks = -(-classes // width)
    padding = [(0, 0)] * (logits.ndim - 1) + [(0, blocks * width - classes)]
    table = jnp.pad(logits, padding, constant_values=EXCLUDED).reshape(*logits.shape[:-1], blocks, width)
    block = categorical(fold(keys, "block"), jax.nn.logsumexp(table, axis=-1))
    row = jnp.take_along_axis(table, block[..., None, None], axis=-2)[..., 0, :]
    return block * width + categorical(fold(keys, "class"), row)


def select_lowest(scores: Float[Array, "B L"], counts: Int[Array, " B"]) -> Bool[Array, "B L"]:
    """Select the `counts` lowest scores of each row; ties go to the earlier position."""
    ranks = jnp.argsort(jnp.argsort(scores, axis=1, stable=True), axis=1)
    return ranks < counts[:, None]
