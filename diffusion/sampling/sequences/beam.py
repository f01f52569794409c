"""Beam search of an autoregressive encoder-decoder, in one scan."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import EXCLUDED, log_probs
from diffusion.types import EncodedSource, Params, Tokens


class Beams(NamedTuple):
    """Carry of the scan: `beam` hypotheses per source, best first."""

    tokens: Tokens  # [B beam, L], with padding after the end of a hypothesis
    last: Any
    scores: Float[Array, "B beam"]  # log p, in nats
    lengths: Float[Array, "B beam"]
    ended: Any
    cache: Any


@dataclass(frozen=True)
class BeamSearch:
    """Beam search for the hypothesis with the largest log p / length^penalty.

    Each step keeps the `beam` hypotheses with the largest log p per source. `step(params, token [B], position, encoded,
    cache)` returns logits [B, V] and the cache, and `init_cache(size, length)` the empty cache; the second axis of
    caches is the batch. A hypothesis ends with `eos_id`, or after `longest` tokens without it. A beam of 1 is greedy
    decoding.

    Raises:
      ValueError: if the beam is below 1.
    """

    step: Callable[..., tuple[Float[Array, "B V"], Any]]
    init_cache: Callable[[int, int], Any]
    vocabulary: int
    start_id: int
    eos_id: int
    pad_id: int
    beam: int = 5
    penalty: float = 1.0

    def __post_init__(self):
        if self.beam < 1:
            raise ValueError(f"sample.beam: must be at least 1, not {self.beam}")

    def __call__(self, params: Params, encoded: EncodedSource, longest: int) -> tuple[Tokens, Float[Array, " B"]]:
        """Return tokens [B, longest] with EOS and padding, and log p in nats per sequence."""
        size, beam = len(encoded.mask), self.beam
        repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam, axis=0), encoded)
        first = jnp.arange(size)[:, None] * beam
        classes = jnp.arange(self.vocabulary)

        def grow(beams: Beams, position: Array) -> tuple[Beams, None]:
            logits, cache = self.step(params, beams.last, position, repeated, beams.cache)
            nats = log_probs(logits, self.vocabulary)[:, : self.vocabulary]
            # An ended hypothesis has one continuation with log p = 0, which is written as padding.
            end_only = jnp.where(classes == self.eos_id, 0.0, EXCLUDED)
            nats = jnp.where(beams.ended[:, None], end_only[None], nats)
            total = beams.scores[..., None] + nats.reshape(size, beam, self.vocabulary)
            scores, index = jax.lax.top_k(total.reshape(size, -1), beam)
            parent = (first + index // self.vocabulary).reshape(-1)
            token = (index % self.vocabulary).reshape(-1)
            ended = beams.ended[parent]
            tokens = beams.tokens[parent].at[:, position].set(jnp.where(ended, self.pad_id, token))
            lengths = beams.lengths.reshape(-1)[parent] + ~ended
            cache = jax.tree.map(lambda leaf: jnp.take(leaf, parent, axis=1), cache)
            ended = ended | (token == self.eos_id)
            return Beams(tokens, token, scores, lengths.reshape(size, beam), ended, cache), None

        start = Beams(
            jnp.full((size * beam, longest), self.pad_id),
            jnp.full(size * beam, self.start_id),
            # All hypotheses of a source are equal at the start, so that only one of them may be extended.
            jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, EXCLUDED)[None], (size, beam)),
            jnp.zeros((size, beam)),
            jnp.zeros(size * beam, bool),
            self.init_cache(size * beam, longest),
        )
        beams, _ = jax.lax.scan(grow, start, jnp.arange(longest))
        best = jnp.argmax(beams.scores / beams.lengths**self.penalty, axis=1)
        index = first[:, 0] + best
        return beams.tokens[index], jnp.take_along_axis(beams.scores, best[:, None], axis=1)[:, 0]
