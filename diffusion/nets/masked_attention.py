"""Attention over keys of which some are padding, softmax(q k^T / sqrt(d)) v over the others."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Finite: a row whose keys are all padding mixes them evenly instead of turning into NaN.
NO_MASS = -1e30


def attend_masked(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B M N H"],
    value: Float[Array, "B M N H"],
    allowed: Bool[Array, "#B #L M"],
    backend: str = "auto",
) -> Float[Array, "B L N H"]:
    """Each query mixes the keys that it is allowed; others have a weight of exactly zero.

    `backend` is "plain" (two products around a float32 softmax), "xla", or "auto": plain on CPU, and for an
    ahead-of-time compilation for another platform "auto:tpu". Raises ValueError for other names.
    """
    name, _, platform = backend.partition(":")
    if name == "auto":
        name = "plain" if (platform or jax.default_backend()) == "cpu" else "xla"
    if name == "xla":
        mask = jnp.broadcast_to(allowed, (query.shape[0], query.shape[1], key.shape[1]))[:, None]
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")
    if name != "plain":
        raise ValueError(f"net.attention: unknown backend '{backend}'; with padding use one of auto, plain, xla")
    scores = jnp.einsum("blnh,bmnh->bnlm", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(jnp.broadcast_to(allowed[:, None], scores.shape), scores / math.sqrt(query.shape[-1]), NO_MASS)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bnlm,bmnh->blnh", weights, value)
