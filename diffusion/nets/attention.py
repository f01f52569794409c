"""Scaled dot-product attention, softmax(q k^T / sqrt(d)) v, with the fastest exact kernel of each platform."""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from diffusion.nets.layers import automatic_axes, batch_axes

Heads = Float[Array, "B L N H"]
KeysOrValues = Float[Array, "B M N H"]  # at the positions of the queries, or at others
# A finite score, so that a row with padding only has uniform weights and not NaN.
NO_MASS = -1e30
SPLASH_BLOCK = 128  # the blocks of splash attention have sides that are multiples of the 128 lanes of a TPU


def plain(query: Heads, key: KeysOrValues, value: KeysOrValues, *, causal: bool) -> Heads:
    """Compute attention with two matrix products and a float32 softmax; the fastest form on CPU, and the reference."""
    length = query.shape[1]
    scores = jnp.einsum("blnh,bmnh->bnlm", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    if causal:
        allowed = jnp.tril(jnp.ones((length, length), bool))
        scores = jnp.where(allowed[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bnlm,bmnh->blnh", weights, value)


def _dot_product(implementation: Literal["xla", "cudnn"]) -> Callable[..., Heads]:
    def attention(query: Heads, key: KeysOrValues, value: KeysOrValues, *, causal: bool) -> Heads:
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation=implementation)

    return attention


def _splash_blocks(length: int):
    from jax.experimental.pallas.ops.tpu import splash_attention

    block = max(size for size in (128, 256, 512) if length % size == 0)
    return splash_attention.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )


def splash(query: Heads, key: Heads, value: Heads, *, causal: bool, interpret: bool = False) -> Heads:
    """Compute TPU splash attention, mapped over the mesh axes (data, fsdp) of the batch and "model" of the heads.

    Raises:
      ValueError: if the length is not a multiple of 128.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    batch, length, heads, head_dim = query.shape
    if length % SPLASH_BLOCK:
        raise ValueError(f"net.attention: splash needs a length divisible by {SPLASH_BLOCK}, got {length}; use xla")

    def local(query, key, value):
        mask = splash_attention.CausalMask if causal else splash_attention.FullMask
        kernel = splash_attention.make_splash_mha(
            splash_attention.MultiHeadMask([mask((length, length))] * query.shape[2]),
            block_sizes=_splash_blocks(length),
            head_shards=1,
            q_seq_shards=1,
            interpret=interpret,
        )
        scaled = query * jnp.asarray(1.0 / math.sqrt(head_dim), query.dtype)
        by_head = [jnp.swapaxes(x, 1, 2) for x in (scaled, key, value)]
        mixed: Any = jax.vmap(kernel)(*by_head)
        return jnp.swapaxes(mixed, 1, 2).astype(value.dtype)

    axes = automatic_axes()
    if not axes:
        return local(query, key, value)
    over_heads = "model" if "model" in axes and heads % axes["model"] == 0 else None
    spec = PartitionSpec(batch_axes(batch) or None, None, over_heads, None)
    # The kernel is opaque to the partitioner, so that each device must run it on a shard of examples and heads.
    return jax.shard_map(local, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(query, key, value)


BACKENDS: dict[str, Callable[..., Heads]] = {
    "plain": plain,
    "xla": _dot_product("xla"),
    "cudnn": _dot_product("cudnn"),
    "splash": splash,
}


def choose(platform: str, dtype, length: int) -> str:
    """Return the backend of "auto": splash on TPU, cuDNN on GPU in 16 bits, plain products on other platforms."""
    if platform == "tpu":
        return "splash" if length % SPLASH_BLOCK == 0 else "xla"
    if platform in ("gpu", "cuda", "rocm"):
        return "cudnn" if platform != "rocm" and jnp.dtype(dtype).itemsize == 2 else "xla"
    return "plain"


def attend(query: Heads, key: KeysOrValues, value: KeysOrValues, *, causal: bool, backend: str = "auto") -> Heads:
    """Compute softmax(q k^T / sqrt(H)) v over positions; if `causal`, each position attends to itself and earlier ones.

    `backend` is one of "plain", "xla", "cudnn", "splash", or "auto" for the platform of this process. Ahead-of-time
    compilation for another platform names it, as in "auto:tpu".

    Raises:
      ValueError: if the backend is not known.
    """
    name, _, platform = backend.partition(":")
    if name == "auto":
        backend = choose(platform or jax.default_backend(), query.dtype, query.shape[1])
    if backend not in BACKENDS:
        raise ValueError(f"net.attention: unknown backend '{backend}'; use one of auto, {', '.join(BACKENDS)}")
    return BACKENDS[backend](query, key, value, causal=causal)


def attend_cached(query: Heads, key: KeysOrValues, value: KeysOrValues, position: Int[Array, ""]) -> Heads:
    """Compute causal attention of tokens at position, position + 1, ... to cached keys and values of M positions."""
    scores = jnp.einsum("blnh,bmnh->bnlm", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    places = jnp.arange(key.shape[1])[None]
    allowed = places <= (position + jnp.arange(query.shape[1]))[:, None]
    weights = jax.nn.softmax(jnp.where(allowed[None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("bnlm,bmnh->blnh", weights.astype(value.dtype), value)


def attend_masked(
    query: Float[Array, "B L N H"],
    key: Float[Array, "B M N H"],
    value: Float[Array, "B M N H"],
    allowed: Bool[Array, "#B #L M"],
    backend: str = "auto",
) -> Float[Array, "B L N H"]:
    """Compute attention to the keys where `allowed` is true; other keys have a weight of exactly 0.

    `backend` is "plain" (two products and a float32 softmax), "xla", or "auto", which is plain on CPU and xla on other
    platforms. Ahead-of-time compilation for another platform names it, as in "auto:tpu".

    Raises:
      ValueError: if the backend is not known.
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
