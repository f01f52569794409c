"""The diffusion transformer of MDLM (arXiv 2406.07524, appendix C.2), and its causal variant for autoregression."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from diffusion.nets.attention import FULL, attend
from diffusion.nets.attention_masks import AttentionMask
from diffusion.nets.layers import (
    LayerNorm,
    Linear,
    TimeEmbedder,
    dropout,
    dropout_seeds,
    modulate,
    rotary_table,
    rotate,
    stacked,
    uniform_fan_in,
)
from diffusion.nets.self_conditioning_adapter import SelfConditioningAdapter
from diffusion.partition import shard_batch

SIZES = {
    "tiny": dict(hidden=512, blocks=8, heads=8),
    "small": dict(hidden=768, blocks=12, heads=12),
    "medium": dict(hidden=1024, blocks=24, heads=16),
}

Cache = tuple[Float[Array, "N B M H E"], Float[Array, "N B M H E"]]


class DiTBlock(nn.Module):
    """x += gate drop(attention(modulate(norm(x)))); x += gate drop(mlp(modulate(norm(x)))).

    Without adaLN the modulation and the gates are absent.
    """

    hidden: int
    heads: int
    mlp_ratio: int
    dropout: float
    mask: AttentionMask
    adaln: bool
    dtype: str
    attention: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        condition: Float[Array, "B C"] | None,
        rotary: Float[Array, "2 L H"],
        position: Int[Array, ""] | None,
        seeds: UInt32[Array, "B 2 2"] | None,
        cache: tuple[Array, Array] | None,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array] | None]:
        batch, length, _ = x.shape
        if self.adaln:
            assert condition is not None
            modulation = Linear(6 * self.hidden, initializer="zeros", name="modulation")(condition)
            shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation[:, None], 6, axis=-1)

        h = LayerNorm(name="norm1")(x)
        h = modulate(h, shift1, scale1) if self.adaln else h
        qkv = Linear(3 * self.hidden, bias=False, dtype=self.dtype, name="qkv")(h)
        query, key, value = (part.reshape(batch, length, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is None:
            mixed = attend(query, key, value, self.mask, backend=self.attention)
        else:
            assert position is not None
            cache = update_cache(cache[0], key, position), update_cache(cache[1], value, position)
            places = position + jnp.arange(length)
            mixed = attend(query, *cache, self.mask, positions=places, backend="plain")
        h = mixed.reshape(batch, length, self.hidden)
        h = Linear(self.hidden, bias=False, dtype=self.dtype, name="attention_out")(h)
        h = h if seeds is None else dropout(h, seeds[:, 0], self.dropout)
        x = shard_batch(x + (gate1 * h if self.adaln else h))

        h = LayerNorm(name="norm2")(x)
        h = modulate(h, shift2, scale2) if self.adaln else h
        h = Linear(self.mlp_ratio * self.hidden, dtype=self.dtype, name="mlp_in")(h)
        h = Linear(self.hidden, dtype=self.dtype, name="mlp_out")(nn.gelu(h, approximate=True))
        h = h if seeds is None else dropout(h, seeds[:, 1], self.dropout)
        return shard_batch(x + (gate2 * h if self.adaln else h)), cache


def update_cache(cache: Float[Array, "B M N H"], new: Float[Array, "B L N H"], position: Int[Array, ""]) -> Array:
    """Write keys or values at position, position + 1, ... of the cache."""
    return jax.lax.dynamic_update_slice(cache, new.astype(cache.dtype), (0, position, 0, 0))


class Head(nn.Module):
    """Linear(modulate(norm(x))) with `features` outputs per position; all parameters except the norm start at 0."""

    features: int
    hidden: int
    adaln: bool
    dtype: str

    def setup(self):
        self.norm = LayerNorm()
        if self.adaln:
            self.modulation = Linear(2 * self.hidden, initializer="zeros")
        self.linear = Linear(self.features, initializer="zeros", dtype=self.dtype)

    def normed(self, x: Float[Array, "B L D"], condition: Float[Array, "B C"] | None) -> Float[Array, "B L D"]:
        """Return modulate(norm(x)), the input of the linear map."""
        h = self.norm(x)
        if self.adaln:
            assert condition is not None
            h = modulate(h, *jnp.split(self.modulation(condition)[:, None], 2, axis=-1))
        return h

    def logits(self, x: Float[Array, "R L D"]) -> Float[Array, "R L K"]:
        """Return Linear(x)."""
        return self.linear(x)

    def __call__(self, x: Float[Array, "B L D"], condition: Float[Array, "B C"] | None) -> Float[Array, "B L K"]:
        return self.logits(self.normed(x, condition))


class DiT(nn.Module):
    """A bidirectional transformer with rotary positions, conditioned on the noise level through adaLN-zero.

    `mask=Causal(), adaln=False` is the autoregressive baseline of MDLM, with the same blocks without modulation.
    Parameters are float32, and those of the blocks are stacked along a leading axis. Matrix products run in `dtype`;
    the residual stream, layer norms and softmax are float32; logits are in `dtype`. `remat` ("none", "dots", "full")
    trades memory for recomputation, and each iteration of the loop over blocks has `unroll` blocks. `embedder` replaces
    the table of token embeddings, and may read several symbols per position. With `memory` the network has a
    self-conditioning input, its last prediction, which an adapter adds. With `labels` the class of an example joins the
    noise level; the last row of the label table is the null label. The head has `outputs` values per position, or one
    per class if it is 0.
    """

    vocab_size: int
    hidden: int = 768
    blocks: int = 12
    heads: int = 12
    cond_dim: int = 128
    mlp_ratio: int = 4
    dropout: float = 0.1
    mask: AttentionMask = FULL
    adaln: bool = True
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"
    unroll: int = 1
    embedder: nn.Module | None = None
    memory: bool = False
    labels: int = 0
    outputs: int = 0

    def setup(self):
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(f"net.heads: {self.heads} heads need an even share of net.hidden={self.hidden} each")
        if self.embedder is None:
            shape = (self.vocab_size, self.hidden)
            self.embedding = self.param("embedding", uniform_fan_in(self.hidden), shape, jnp.float32)
        if self.memory:
            self.adapter = SelfConditioningAdapter(self.hidden, self.dtype)
        if self.adaln:
            self.time_embedder = TimeEmbedder(self.cond_dim)
        if self.labels:
            if not self.adaln:
                raise ValueError("model.labels: an example's class is read through adaLN; set model.adaln=True")
            shape = (self.labels + 1, self.cond_dim)
            self.label_embedding = self.param("label_embedding", nn.initializers.normal(0.02), shape, jnp.float32)
        in_axes = (nn.broadcast, nn.broadcast, nn.broadcast, 0, 0)
        self.stack = stacked(DiTBlock, self.blocks, in_axes=in_axes, unroll=self.unroll, remat=self.remat)(
            hidden=self.hidden,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
            mask=self.mask,
            adaln=self.adaln,
            dtype=self.dtype,
            attention=self.attention,
            name="blocks",
        )
        self.output = Head(self.outputs or self.vocab_size, self.hidden, self.adaln, self.dtype, name="head")

    def embed(self, tokens: Int[Array, "B N"]) -> Float[Array, "B L D"]:
        """Return rows of the embedding table, or the output of the embedder."""
        if self.embedder is not None:
            return shard_batch(self.embedder(tokens))
        return shard_batch(jnp.take(self.embedding, tokens, axis=0))

    def token_table(self, codes: Int[Array, "1 N"]) -> Float[Array, "K D"]:
        """Return the embeddings of the codes of all tokens; rows of the mask and of padding may follow."""
        # A gather of all rows would copy the table in every evaluation.
        return self.embedding if self.embedder is None else self.embedder(codes)[0]

    def features(
        self,
        tokens: Int[Array, "B N"],
        sigma: Float[Array, " B"] | None = None,
        *,
        label: Int[Array, " B"] | None = None,
        memory: Float[Array, "B L D"] | None = None,
        positions: Int[Array, " L"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Return the output of the blocks; `positions` are 0, 1, ... by default (see `__call__`)."""
        x = self.embed(tokens)
        if self.memory:
            x = self.adapter(x, memory)
        seeds = dropout_seeds(keys, self.blocks) if keys is not None and self.dropout > 0 else None
        places = jnp.arange(x.shape[1]) if positions is None else positions
        rotary = rotary_table(places, self.hidden // self.heads)
        x, _ = self.stack(x, self._condition(sigma, x.shape[0], label), rotary, None, seeds, None)
        return x

    def head_input(
        self,
        tokens: Int[Array, "B N"],
        sigma: Float[Array, " B"] | None = None,
        *,
        label: Int[Array, " B"] | None = None,
        **inputs: Any,
    ) -> Float[Array, "B L D"]:
        """Return the normed features, of which `logits` is a linear map; see `features` for the arguments."""
        x = self.features(tokens, sigma, label=label, **inputs)
        return self.output.normed(x, self._condition(sigma, x.shape[0], label))

    def logits(self, x: Float[Array, "R L D"]) -> Float[Array, "R L K"]:
        """Return the logits for inputs of the head, of any tokens."""
        return self.output.logits(x)

    def __call__(
        self,
        tokens: Int[Array, "B N"],
        sigma: Float[Array, " B"] | None = None,
        *,
        label: Int[Array, " B"] | None = None,
        memory: Float[Array, "B L D"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L K"]:
        """Return logits for every position.

        `sigma` None is a noise level of 0, `label` None the null label, `memory` None no self-conditioning input, and
        `keys`, one per example, turn on dropout.
        """
        return self.logits(self.head_input(tokens, sigma, label=label, memory=memory, keys=keys))

    def init_cache(self, batch: int, length: int) -> Cache:
        """Return empty keys and values for `decode`, [blocks, batch, length, heads, hidden/heads] each, in `dtype`."""
        shape = (self.blocks, batch, length, self.heads, self.hidden // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def extend(
        self, tokens: Int[Array, "B S"], position: Int[Array, ""], cache: Cache
    ) -> tuple[Float[Array, "B S D"], Cache]:
        """Return `head_input` of S tokens at position, position + 1, ..., and the cache with these tokens.

        Raises:
          ValueError: if the network reads ahead, beyond the tokens and the cache.
        """
        if self.mask.reads_ahead:
            raise ValueError("net.mask: decoding with a cache needs a mask such as Causal() that does not read ahead")
        x = self.embed(tokens)
        condition = self._condition(None, x.shape[0])
        rotary = rotary_table(position + jnp.arange(x.shape[1]), self.hidden // self.heads)
        x, cache = self.stack(x, condition, rotary, jnp.asarray(position), None, cache)
        return self.output.normed(x, condition), cache

    def decode(
        self, token: Int[Array, " B"], position: Int[Array, ""], cache: Cache
    ) -> tuple[Float[Array, "B K"], Cache]:
        """Return logits for the token after `token`, which is at `position`, and the cache with `token`."""
        x, cache = self.extend(token[:, None], position, cache)
        return self.logits(x)[:, 0], cache

    def _condition(
        self, sigma: Float[Array, " B"] | None, batch: int, label: Int[Array, " B"] | None = None
    ) -> Float[Array, "B C"] | None:
        if not self.adaln:
            return None
        condition = self.time_embedder(jnp.zeros((batch,)) if sigma is None else sigma)
        if not self.labels:
            return condition
        label = jnp.full((batch,), self.labels) if label is None else label
        return condition + jnp.take(self.label_embedding, label, axis=0)
