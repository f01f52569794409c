"""The codec of embedding diffusion: tokens are rows e(v) of one table, and a clean estimate is scored against them."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.categorical import exclude
from diffusion.nets.encoder_decoder_io import SCALES, Rows, scaled_rows
from diffusion.types import Logits, Params, Tokens

Latents = Float[Array, "B L d"]


@dataclass(frozen=True)
class Embedding:
    """e(v), logits by the tied table, and rounding; of the table's rows the first `vocabulary` are tokens.

    Rows behind them (a mask, padding) are latents like any other, but nothing is ever rounded to them.
    Raises:
      ValueError: for an unknown scale.
    """

    table: Callable[[Params], Rows]
    vocabulary: int
    scale: str = "unit"

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"codec.scale: unknown {self.scale!r}; known: {', '.join(SCALES)}")

    def rows(self, params: Params) -> Rows:
        """e(v) of every row of the table."""
        return scaled_rows(self.table(params), self.scale)

    def encode(self, params: Params, tokens: Tokens) -> Latents:
        """z_0 = e(y)."""
        return jnp.take(self.rows(params), tokens, axis=0, mode="clip")

    def logits(self, params: Params, clean: Latents) -> Logits:
        """The product of an estimate with every row, in float32; rows that are no tokens have no mass."""
        rows = self.rows(params) if self.scale == "unit" else self.table(params).astype(jnp.float32)
        return exclude(jnp.matmul(clean.astype(jnp.float32), rows.T), self.vocabulary)

    def decode(self, params: Params, clean: Latents) -> Tokens:
        """Rounding: the token of the largest logit."""
        return jnp.argmax(self.logits(params, clean), axis=-1).astype(jnp.int32)

    def clamp(self, params: Params, clean: Latents) -> Latents:
        """The embedding of the rounded token (the clamping trick of Diffusion-LM, arXiv 2205.14217)."""
        return self.encode(params, self.decode(params, clean))

    def mean_square(self, params: Params) -> Float[Array, ""]:
        """Mean squared coordinate of all tokens' embeddings: 1 where they are normalized."""
        return jnp.mean(self.rows(params)[: self.vocabulary] ** 2)

    def neighbor_distance(self, params: Params, chunk: int = 1024) -> Float[Array, ""]:
        """v = mean over tokens u of min_{w != u} ||e_u - e_w||^2 / d; `chunk` rows at a time."""
        rows = self.rows(params)[: self.vocabulary]
        count, width = rows.shape
        chunk = min(chunk, count)
        squares = jnp.sum(rows**2, axis=-1)

        def nearest(index: Int[Array, " C"]) -> Float[Array, " C"]:
            mine = rows[index]
            distance = squares[index][:, None] + squares[None] - 2 * mine @ rows.T
            return jnp.min(jnp.where(index[:, None] == jnp.arange(count)[None], jnp.inf, distance), axis=-1)

        # The last chunk reaches back, and what it repeats is left out.
        starts = jnp.minimum(jnp.arange(0, count, chunk), count - chunk)
        index = starts[:, None] + jnp.arange(chunk)[None]
        new = index >= jnp.arange(0, count, chunk)[:, None]
        smallest = jax.lax.map(nearest, index)
        return jnp.sum(jnp.where(new, jnp.maximum(smallest, 0), 0)) / count / width

    def mean_cosine(self, params: Params) -> Float[Array, ""]:
        """Mean cosine of two different tokens' embeddings: near 1 where the table has collapsed."""
        rows = self.rows(params)[: self.vocabulary]
        unit = rows * jax.lax.rsqrt(jnp.maximum(jnp.sum(rows**2, axis=-1, keepdims=True), 1e-24))
        count = len(rows)
        return (jnp.sum(jnp.sum(unit, axis=0) ** 2) - jnp.sum(unit**2)) / (count * (count - 1))
