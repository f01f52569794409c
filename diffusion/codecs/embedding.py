"""The codec of embedding diffusion, between tokens and the rows e(v) of an embedding table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.categorical import exclude
from diffusion.nets.encoder_decoder_io import SCALES, Rows, scaled_rows
from diffusion.readout import Readout, of_features
from diffusion.types import Logits, Params, Tokens

Latents = Float[Array, "B L d"]


@dataclass(frozen=True)
class EmbeddingCodec:
    """Embeddings e(v), logits from the tied table, and rounding to the nearest token.

    The first `vocabulary` rows of the table are tokens. The rows after them (a mask, padding) can be embedded, but
    latents are not rounded to them. `pieces` are those of its readouts.

    Raises:
      ValueError: for an unknown scale.
    """

    table: Callable[[Params], Rows]
    vocabulary: int
    scale: str = "unit"
    pieces: int = 0

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(f"codec.scale: unknown {self.scale!r}; known: {', '.join(SCALES)}")

    def rows(self, params: Params) -> Rows:
        """Compute e(v) for every row of the table, [K, d]."""
        return scaled_rows(self.table(params), self.scale)

    def encode(self, params: Params, tokens: Tokens) -> Latents:
        """Compute z_0 = e(tokens)."""
        return jnp.take(self.rows(params), tokens, axis=0, mode="clip")

    def logits(self, params: Params, clean: Latents) -> Logits:
        """Compute the inner products of an estimate with all rows, in float32; rows that are not tokens get no mass."""
        rows = self.rows(params) if self.scale == "unit" else self.table(params).astype(jnp.float32)
        return exclude(jnp.matmul(clean.astype(jnp.float32), rows.T), self.vocabulary)

    def readout(self, params: Params, clean: Latents) -> Readout:
        """Return the logits of an estimate, which are computed where they are read."""
        return of_features(clean, partial(self.logits, params), self.pieces)

    def decode(self, params: Params, clean: Latents) -> Tokens:
        """Round latents to the tokens of the largest logits."""
        return jnp.argmax(self.logits(params, clean), axis=-1).astype(jnp.int32)

    def clamp(self, params: Params, clean: Latents) -> Latents:
        """Replace latents by the embeddings of their rounded tokens (clamping, Diffusion-LM, arXiv 2205.14217)."""
        return self.encode(params, self.decode(params, clean))

    def neighbor_distance(self, params: Params, chunk: int = 1024) -> Float[Array, ""]:
        """Compute the mean over tokens u of min_{w != u} ||e_u - e_w||^2 / d, `chunk` rows at a time."""
        rows = self.rows(params)[: self.vocabulary]
        count, width = rows.shape
        chunk = min(chunk, count)
        squares = jnp.sum(rows**2, axis=-1)

        def nearest(index: Int[Array, " C"]) -> Float[Array, " C"]:
            chunk_rows = rows[index]
            distance = squares[index][:, None] + squares[None] - 2 * chunk_rows @ rows.T
            return jnp.min(jnp.where(index[:, None] == jnp.arange(count)[None], jnp.inf, distance), axis=-1)

        # The last chunk overlaps the one before it; rows that it repeats are not counted again.
        starts = jnp.minimum(jnp.arange(0, count, chunk), count - chunk)
        index = starts[:, None] + jnp.arange(chunk)[None]
        new = index >= jnp.arange(0, count, chunk)[:, None]
        smallest = jax.lax.map(nearest, index)
        return jnp.sum(jnp.where(new, jnp.maximum(smallest, 0), 0)) / count / width

    def mean_cosine(self, params: Params) -> Float[Array, ""]:
        """Compute the mean cosine of two different tokens' embeddings: near 1 for a collapsed table."""
        rows = self.rows(params)[: self.vocabulary]
        unit = rows * jax.lax.rsqrt(jnp.maximum(jnp.sum(rows**2, axis=-1, keepdims=True), 1e-24))
        count = len(rows)
        return (jnp.sum(jnp.sum(unit, axis=0) ** 2) - jnp.sum(unit**2)) / (count * (count - 1))
