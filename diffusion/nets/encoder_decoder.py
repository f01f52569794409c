"""Encoder-decoder transformers over token embeddings: the non-autoregressive denoiser, and its causal variant."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from diffusion.nets.attention import attend
from diffusion.nets.dit import Cache, update_cache
from diffusion.nets.encoder_decoder_io import Form, Join, Readout, TokenTime, scaled_rows
from diffusion.nets.layers import LayerNorm, Linear, dropout, dropout_seeds, stacked
from diffusion.partition import shard_batch
from diffusion.types import EncodedSource, SequenceCondition


class EncoderDecoderBlock(nn.Module):
    """Self-attention, attention to the source if `cross`, and a feed-forward part, each with a residual and a norm.

    With `norm_first` each is x += drop(part(norm(x))), otherwise x = norm(x + drop(part(x))).
    """

    hidden: int
    heads: int
    feed_forward: int
    dropout: float
    cross: bool
    norm_first: bool
    activation: str
    dtype: str
    attention: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        allowed: Bool[Array, "#B #L M"],
        states: Float[Array, "B S E"] | None,
        source: Bool[Array, "B 1 S"] | None,
        position: Int[Array, ""] | None,
        seeds: UInt32[Array, "B 3 2"] | None,
        cache: tuple[Array, Array] | None,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array] | None]:
        new_cache = cache

        def linear(features: int, name: str) -> Linear:
            return Linear(features, dtype=self.dtype, name=name)

        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:2], self.heads, -1)

        def self_attention(h: Array) -> Array:
            nonlocal new_cache
            query, key, value = (heads(part) for part in jnp.split(linear(3 * self.hidden, "qkv")(h), 3, axis=-1))
            if cache is not None:
                assert position is not None
                key, value = new_cache = update_cache(cache[0], key, position), update_cache(cache[1], value, position)
            mixed = attend(query, key, value, allowed, backend=self.attention)
            return linear(self.hidden, "attention_out")(mixed.reshape(h.shape))

        def cross_attention(h: Array) -> Array:
            assert states is not None and source is not None
            key, value = (heads(part) for part in jnp.split(linear(2 * self.hidden, "cross_kv")(states), 2, axis=-1))
            query = heads(linear(self.hidden, "cross_q")(h))
            mixed = attend(query, key, value, source, backend=self.attention)
            return linear(self.hidden, "cross_out")(mixed.reshape(h.shape))

        def feed_forward(h: Array) -> Array:
            act = nn.relu if self.activation == "relu" else nn.gelu
            return linear(self.hidden, "mlp_out")(act(linear(self.feed_forward, "mlp_in")(h)))

        parts = [("norm1", self_attention), ("norm2", cross_attention), ("norm3", feed_forward)]
        for site, (name, part) in enumerate(parts):
            if part is cross_attention and not self.cross:
                continue
            norm = LayerNorm(bias=True, name=name)
            h = part(norm(x) if self.norm_first else x)
            h = h if seeds is None else dropout(h, seeds[:, site], self.dropout)
            x = shard_batch(x + h if self.norm_first else norm(x + h))
        return x, new_cache


class EncoderDecoder(nn.Module):
    """A denoiser of target latents, conditioned on source tokens that `encode` reads once for all steps.

    Every target position has its own time. `memory` is the self-conditioning input, the last estimate, or zeros without
    one. Source and target share one table of `vocab_size` rows of width `latent`. Padding has no effect, and `keys`,
    one per example, turn on dropout.

    `kind` is "decoder", the denoiser; "joint", which reads source and target as one sequence without an encoder, the
    source as clean latents at time 0 (after DiffuSeq, arXiv 2210.08933; the time of the source is our choice); or
    "causal", which predicts the next token from tokens (`next_logits`). `form` selects the input, the time embedding
    and the readout (see `encoder_decoder_io`). Without `length_gradient` the gradient of the length head stops at the
    encoder.
    """

    vocab_size: int
    latent: int = 128
    hidden: int = 512
    encoder_blocks: int = 6
    decoder_blocks: int = 6
    heads: int = 8
    feed_forward: int = 2048
    dropout: float = 0.1
    positions: int = 256
    scale: str = "unit"
    table_std: float = 1.0
    form: Form = "difformer"
    input_norm: bool = True
    norm_first: bool = True
    activation: Literal["relu", "gelu"] = "gelu"
    length_classes: int = 256
    length_gradient: bool = True
    kind: Literal["decoder", "joint", "causal"] = "decoder"
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"

    def setup(self):
        if self.hidden % self.heads:
            raise ValueError(f"net.heads: {self.heads} heads need an even share of net.hidden={self.hidden} each")
        shape = (self.vocab_size, self.latent)
        self.embedding = self.param("embedding", nn.initializers.normal(self.table_std), shape, jnp.float32)
        # With smaller values than fairseq's hidden^-1/2, alignment by position is learned late.
        place = nn.initializers.normal(self.hidden**-0.5)
        self.source_positions = self.param("source_positions", place, (self.positions, self.hidden), jnp.float32)
        self.target_positions = self.param("target_positions", place, (self.positions, self.hidden), jnp.float32)
        if self.kind != "joint":
            self.source_input = Linear(self.hidden, bias=False, dtype=self.dtype, name="source_input")
            self.encoder = self._stack(self.encoder_blocks, cross=False, name="encoder")
            self.encoder_norm = LayerNorm(bias=True, name="encoder_norm") if self.norm_first else lambda x: x
            if self.length_classes:
                self.length_head = Linear(self.length_classes, initializer=0.02, name="length_head")
        if self.kind == "causal":
            self.target_input = Linear(self.hidden, bias=False, dtype=self.dtype, name="target_input")
        else:
            self.join = Join(self.form, self.hidden, self.dropout, self.dtype, name="join")
            self.time = TokenTime(self.form, self.hidden, name="time")
        self.norm_in = LayerNorm(bias=True, name="input_norm") if self.input_norm else lambda x: x
        self.decoder = self._stack(self.decoder_blocks, cross=self.kind != "joint", name="decoder")
        self.decoder_norm = LayerNorm(bias=True, name="decoder_norm") if self.norm_first else lambda x: x
        self.readout = Readout(self.form, self.latent, self.dtype, name="readout")

    def _stack(self, blocks: int, cross: bool, name: str) -> nn.Module:
        in_axes = (nn.broadcast, nn.broadcast, nn.broadcast, nn.broadcast, 0, 0)
        return stacked(EncoderDecoderBlock, blocks, in_axes=in_axes, remat=self.remat)(
            self.hidden,
            self.heads,
            self.feed_forward,
            self.dropout,
            cross,
            self.norm_first,
            self.activation,
            self.dtype,
            self.attention,
            name=name,
        )

    def _seeds(self, keys: Key[Array, " B"] | None, blocks: int) -> UInt32[Array, "P B 3 2"] | None:
        """Return dropout seeds of all blocks, and of the input as the last of P rows."""
        return dropout_seeds(keys, blocks + 1, sites=3) if keys is not None and self.dropout > 0 else None

    def _placed(self, x: Float[Array, "B L D"], table: Float[Array, "P D"]) -> Float[Array, "B L D"]:
        if x.shape[1] > self.positions:
            raise ValueError(f"net.positions: {x.shape[1]} tokens exceed {self.positions}; raise it or cut the data")
        return x + table[None, : x.shape[1]]

    def encode(
        self, source: Int[Array, "B S"], mask: Bool[Array, "B S"], keys: Key[Array, " B"] | None = None
    ) -> EncodedSource:
        """Encode the source once for all steps; the null conditioning is a source of one mask token."""
        rows = self._rows(source)
        no_lengths = jnp.zeros((len(source), 0))
        if self.kind == "joint":
            return EncodedSource(rows, mask, no_lengths)
        seeds = self._seeds(keys, self.encoder_blocks)
        x = self._placed(self.source_input(rows), self.source_positions)
        x = x if seeds is None else dropout(x, seeds[-1, :, 0], self.dropout)
        blocks = None if seeds is None else seeds[:-1]
        states, _ = self.encoder(shard_batch(x), mask[:, None], None, None, None, blocks, None)
        states = self.encoder_norm(states)
        if not self.length_classes:
            return EncodedSource(states, mask, no_lengths)
        pooled = jnp.sum(states * mask[..., None], axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None]
        pooled = pooled if self.length_gradient else jax.lax.stop_gradient(pooled)
        return EncodedSource(states, mask, self.length_head(pooled))

    def __call__(
        self,
        noisy: Float[Array, "B L d"],
        time: Float[Array, " B"] | Float[Array, "B L"],
        condition: SequenceCondition,
        memory: Float[Array, "B L d"] | None = None,
        *,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L d"]:
        """Return the clean estimate; one time per example applies to all positions."""
        (states, source, _), target = condition
        time = jnp.broadcast_to(time.reshape(len(noisy), -1), noisy.shape[:2])
        memory = jnp.zeros_like(noisy) if memory is None else memory
        seeds = self._seeds(keys, self.decoder_blocks)
        allowed, length = target, noisy.shape[1]
        if self.kind == "joint":
            noisy = jnp.concatenate([states, noisy], axis=1)
            memory = jnp.concatenate([jnp.zeros_like(states), memory], axis=1)
            time = jnp.concatenate([jnp.zeros(source.shape), time], axis=1)
            allowed = jnp.concatenate([source, target], axis=1)
        x = self.join(noisy, memory, None if seeds is None else seeds[-1, :, 1]) + self.time(time)
        x, before = x[:, -length:], x[:, :-length]
        x = self._placed(x, self.target_positions)
        if self.kind == "joint":
            x = jnp.concatenate([self._placed(before, self.source_positions), x], axis=1)
        x = self._blocks(x, allowed[:, None], states, source, seeds)
        return self.readout(x[:, -length:])

    def _rows(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L d"]:
        return jnp.take(scaled_rows(self.embedding, self.scale), tokens, axis=0, mode="clip")

    def _blocks(self, x, allowed, states, source, seeds):
        x = self.norm_in(x)
        x = x if seeds is None else dropout(x, seeds[-1, :, 0], self.dropout)
        blocks = None if seeds is None else seeds[:-1]
        x, _ = self.decoder(shard_batch(x), allowed, states, source[:, None], None, blocks, None)
        return self.decoder_norm(x)

    def latent_logits(self, latents: Float[Array, "R L d"]) -> Float[Array, "R L V"]:
        """Return the inner products of latents with all rows of the table."""
        rows = scaled_rows(self.embedding, "unit") if self.scale == "unit" else self.embedding
        return jnp.matmul(latents, rows.T)

    def next_logits(
        self, tokens: Int[Array, "B L"], encoded: EncodedSource, *, keys: Key[Array, " B"] | None = None
    ) -> Float[Array, "B L V"]:
        """Return logits for the token after each token, given the source and the tokens up to and including it."""
        return self.latent_logits(self.next_latents(tokens, encoded, keys=keys))

    def next_latents(
        self, tokens: Int[Array, "B L"], encoded: EncodedSource, *, keys: Key[Array, " B"] | None = None
    ) -> Float[Array, "B L d"]:
        """Return the latents of which `latent_logits` are the `next_logits`."""
        seeds = self._seeds(keys, self.decoder_blocks)
        x = self._placed(self.target_input(self._rows(tokens)), self.target_positions)
        allowed = jnp.tril(jnp.ones((tokens.shape[1],) * 2, bool))[None]
        return self.readout(self._blocks(x, allowed, encoded.states, encoded.mask, seeds))

    def init_cache(self, batch: int, length: int) -> Cache:
        """Return empty keys and values for `step`, [blocks, batch, length, heads, hidden / heads] each, in `dtype`."""
        shape = (self.decoder_blocks, batch, length, self.heads, self.hidden // self.heads)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def step(
        self, token: Int[Array, " B"], position: Int[Array, ""], encoded: EncodedSource, cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Return logits for the token after `token`, which is at `position`, and the cache with `token`."""
        x = (
            self.target_input(self._rows(token[:, None]))
            + jnp.take(self.target_positions, position, axis=0)[None, None]
        )
        allowed = (jnp.arange(cache[0].shape[2]) <= position)[None, None]
        x = self.norm_in(x)
        x, cache = self.decoder(x, allowed, encoded.states, encoded.mask[:, None], position, None, cache)
        return self.latent_logits(self.readout(self.decoder_norm(x)))[:, 0], cache

    def start(self, source: Int[Array, "B S"], tokens: Int[Array, "B L"]) -> Array:
        """Call every module once, to initialize the parameters."""
        encoded = self.encode(source, jnp.ones(source.shape, bool))
        if self.kind == "causal":
            return self.next_logits(tokens, encoded)
        condition = SequenceCondition(encoded, jnp.ones(tokens.shape, bool))
        return self(self._rows(tokens), jnp.zeros(len(tokens)), condition)
