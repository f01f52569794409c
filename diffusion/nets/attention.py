"""Scaled dot-product attention, softmax(q k^T / sqrt(d)) v, with the fastest exact kernel of each platform."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from diffusion.nets.attention_masks import AttentionMask, Causal, Full
from diffusion.partition import automatic_axes, batch_axes

Heads = Float[Array, "B L N H"]
KeysOrValues = Float[Array, "B M N H"]  # at the positions of the queries, or at others
Allowed = Bool[Array, "#B #L M"]  # whether each query reads each key
Mask = AttentionMask | Allowed
# A finite score, so that a row with padding only has uniform weights and not NaN.
NO_MASS = -1e30
FULL = Full()
SPLASH_BLOCK = 128  # the blocks of splash attention have sides that are multiples of the 128 lanes of a TPU
CPU_BLOCK = 64  # queries of a block, whose scores stay in the cache of a core
LONG = 1024  # positions from which a CPU does not hold all scores in memory


def dense(mask: Mask, queries: int, keys: int, positions: Int[Array, " L"] | None = None) -> Allowed | None:
    """Return the array of a mask for queries at `positions` (default: 0, 1, ...) and keys at 0, 1, ...; None: all."""
    if isinstance(mask, Full):
        return None
    if not isinstance(mask, AttentionMask):
        return mask
    places = jnp.arange(queries) if positions is None else positions
    return jnp.asarray(mask.allowed(places[:, None], jnp.arange(keys)[None]))[None]


def plain(query: Heads, key: KeysOrValues, value: KeysOrValues, allowed: Allowed | None = None) -> Heads:
    """Compute attention with two matrix products and a float32 softmax; the fastest form on CPU, and the reference."""
    # With the heads before the positions a CPU multiplies contiguous matrices, in half of the time.
    query, key, value = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
    scores = jnp.einsum("bnlh,bnmh->bnlm", query, key, preferred_element_type=jnp.float32)
    scores = scores / math.sqrt(query.shape[-1])
    if allowed is not None:
        scores = jnp.where(allowed[:, None], scores, NO_MASS)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.swapaxes(jnp.einsum("bnlm,bnmh->bnlh", weights, value), 1, 2)


def blocked(query: Heads, key: KeysOrValues, value: KeysOrValues, allowed: Allowed | None = None) -> Heads:
    """Compute `plain` attention one block of queries after the other, and again in the backward pass.

    No array of all scores is in memory, also in the backward pass.

    Raises:
      ValueError: if the number of queries is not a multiple of 64.
    """
    length = query.shape[1]
    if length % CPU_BLOCK:
        raise ValueError(f"net.attention: blocked needs a length divisible by {CPU_BLOCK}, got {length}; use plain")

    def block(rows: tuple[Array, Array | None]) -> Array:
        return plain(rows[0], key, value, rows[1])

    def in_blocks(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(len(x), -1, CPU_BLOCK, *x.shape[2:]), 1, 0)

    if allowed is not None:
        allowed = in_blocks(jnp.broadcast_to(allowed, (len(allowed), length, key.shape[1])))
    mixed = jax.lax.map(jax.checkpoint(block), (in_blocks(query), allowed))
    return jnp.moveaxis(mixed, 0, 1).reshape(query.shape)


def dot_product(
    query: Heads,
    key: KeysOrValues,
    value: KeysOrValues,
    mask: Mask,
    positions: Int[Array, " L"] | None,
    implementation: Literal["xla", "cudnn"],
) -> Heads:
    """Compute attention with a kernel of `jax.nn.dot_product_attention`."""
    if isinstance(mask, Causal) and positions is None:
        return jax.nn.dot_product_attention(query, key, value, is_causal=True, implementation=implementation)
    allowed = dense(mask, query.shape[1], key.shape[1], positions)
    allowed = None if allowed is None else allowed[:, None]
    return jax.nn.dot_product_attention(query, key, value, mask=allowed, implementation=implementation)


def splash(query: Heads, key: Heads, value: Heads, mask: AttentionMask, interpret: bool = False) -> Heads:
    """Compute TPU splash attention, mapped over the mesh axes (data, fsdp) of the batch and "model" of the heads.

    Raises:
      ValueError: if the length is not a multiple of 128.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention

    batch, length, heads, head_dim = query.shape
    if length % SPLASH_BLOCK:
        raise ValueError(f"net.attention: splash needs a length divisible by {SPLASH_BLOCK}, got {length}; use xla")

    def lowered() -> Any:
        if isinstance(mask, Full):
            return splash_attention.FullMask((length, length))
        if isinstance(mask, Causal):
            return splash_attention.CausalMask((length, length))
        places = np.arange(length)
        return splash_attention.NumpyMask(np.asarray(mask.allowed(places[:, None], places[None])))

    block = max(size for size in (128, 256, 512) if length % size == 0)
    names = [field.name for field in dataclasses.fields(splash_attention.BlockSizes)]
    sides: Any = {name: block for name in names if name.startswith("block_")}

    def local(query, key, value):
        kernel = splash_attention.make_splash_mha(
            splash_attention.MultiHeadMask([lowered()] * query.shape[2]),
            block_sizes=splash_attention.BlockSizes(**sides),
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


def choose(platform: str, dtype, length: int) -> str:
    """Return the backend of "auto": splash on TPU, cuDNN on GPU in 16 bits, else products, of long texts in blocks."""
    if platform == "tpu":
        return "splash" if length % SPLASH_BLOCK == 0 else "xla"
    if platform in ("gpu", "cuda", "rocm"):
        return "cudnn" if platform != "rocm" and jnp.dtype(dtype).itemsize == 2 else "xla"
    return "blocked" if length >= LONG and length % CPU_BLOCK == 0 else "plain"


def attend(
    query: Heads,
    key: KeysOrValues,
    value: KeysOrValues,
    mask: Mask = FULL,
    *,
    positions: Int[Array, " L"] | None = None,
    backend: str = "auto",
) -> Heads:
    """Compute softmax(q k^T / sqrt(H)) v over the keys that `mask` allows; other keys have a weight of exactly 0.

    The mask is a value (see `attention_masks`) or an array [#B, #L, M], for padding; the weights of a query without a
    key are uniform. `positions` are the indices of the queries where keys are those of a cache at 0, 1, ...; by default
    queries are at 0, 1, ... too. `backend` is one of "plain", "blocked", "xla", "cudnn", "splash", or "auto" for the
    platform of this process. Ahead-of-time compilation for another platform names it, as in "auto:tpu". An array, or
    positions, go with plain, blocked and xla.

    Raises:
      ValueError: if the backend is not known, or does not take the mask.
    """
    name, _, platform = backend.partition(":")
    platform = platform or jax.default_backend()
    varies = positions is not None or not isinstance(mask, AttentionMask)
    if name == "auto" and varies:
        name = "plain" if platform == "cpu" else "xla"
    elif name == "auto":
        name = choose(platform, query.dtype, query.shape[1])
    known = ("plain", "blocked", "xla") if varies else ("plain", "blocked", "xla", "cudnn", "splash")
    if name not in known:
        with_padding = "with padding " if varies else ""
        raise ValueError(f"net.attention: unknown backend '{name}'; {with_padding}use one of auto, {', '.join(known)}")
    if name == "splash":
        assert isinstance(mask, AttentionMask)
        return splash(query, key, value, mask)
    if name in ("plain", "blocked"):
        allowed = dense(mask, query.shape[1], key.shape[1], positions)
        return (plain if name == "plain" else blocked)(query, key, value, allowed)
    return dot_product(query, key, value, mask, positions, "cudnn" if name == "cudnn" else "xla")
