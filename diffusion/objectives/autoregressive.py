"""Next-token cross-entropy of autoregressive models, whose likelihood is exact."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp

from diffusion.categorical import exclude, target_log_probs
from diffusion.objectives.embedding import Encode, cross_entropy, source_of
from diffusion.objectives.loss import Loss, bind_batch, summed
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoiser, Logits, Params, Tokens


def shift_right(tokens: Tokens, start: int) -> Tokens:
    """Shift tokens right by one position: the symbol `start`, then all but the last token."""
    return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=start)


@dataclass(frozen=True)
class NextToken:
    """Mean over tokens of -log p(x^i | x^{<i}), in nats per token: an exact likelihood.

    The mask is the start symbol, so that every token of a window is predicted, and autoregressive and diffusion models
    are evaluated on the same positions.
    """

    denoiser: Denoiser
    mask_id: int

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights = batch["tokens"], batch["weights"]
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        logits = denoise(shift_right(tokens, self.mask_id), jnp.zeros(len(tokens)))
        return summed(-target_log_probs(logits, tokens, self.mask_id) * weights, weights)


@dataclass(frozen=True)
class NextTarget:
    """Mean over target tokens of -log p(y_i | y_<i, x) given a source x, in nats per token.

    Without label smoothing, which acts in training only, this is an exact likelihood. `next_logits(params, tokens,
    encoded, keys=keys)` are the logits of a causal decoder; `start_id` is its start symbol.
    """

    encode: Encode
    next_logits: Callable[..., Logits]
    vocabulary: int
    start_id: int
    label_smoothing: float = 0.0

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights = batch["tokens"], batch["weights"]
        encoder_keys, keys = (fold(draws.keys, name) if train else None for name in ("encoder", "dropout"))
        encoded = self.encode(params, *source_of(batch, null_id=None), encoder_keys)
        logits = self.next_logits(params, shift_right(tokens, self.start_id), encoded, keys=keys)
        smoothing = self.label_smoothing if train else 0.0
        nats = cross_entropy(exclude(logits, self.vocabulary), tokens, self.vocabulary, smoothing)
        return summed(nats * weights, weights)
