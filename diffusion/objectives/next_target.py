"""Next-token cross-entropy of targets given sources: the autoregressive encoder-decoder."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import exclude
from diffusion.objectives.autoregressive import shift_right
from diffusion.objectives.embedding import Encode, cross_entropy, sources
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Logits, Metrics, Params


@dataclass(frozen=True)
class NextTarget:
    """-log p(y_i | y_<i, x) in nats a token, smoothed in training; without smoothing an exact likelihood.

    `next_logits(params, tokens, encoded, keys)` comes from a causal decoder. The mask symbol `start_id` starts targets.
    """

    encode: Encode
    next_logits: Callable[..., Logits]
    vocabulary: int
    start_id: int
    label_smoothing: float = 0.0

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        tokens, weights = batch["tokens"], batch["weights"]
        encoder_keys, keys = (fold(draws.keys, name) if train else None for name in ("encoder", "dropout"))
        encoded = self.encode(params, *sources(batch, none_id=None), encoder_keys)
        logits = self.next_logits(params, shift_right(tokens, self.start_id), encoded, keys=keys)
        smoothing = self.label_smoothing if train else 0.0
        nats = cross_entropy(exclude(logits, self.vocabulary), tokens, self.vocabulary, smoothing)
        total = jnp.sum(nats * weights)
        return total, {"loss": (total, jnp.sum(weights))}
