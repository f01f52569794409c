"""Next-token cross-entropy of autoregressive models, whose likelihood is exact."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.objectives.embedding import Encode, source_of, token_cross_entropy
from diffusion.objectives.loss import Loss, bind_batch, summed, token_log_probs
from diffusion.readout import Readout, evaluated
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoise, Denoiser, MaskedProcess, Params, Symbols, Tokens


def shift_right(tokens: Symbols, start: int) -> Symbols:
    """Shift tokens right by one position: the symbol `start`, then all but the last token."""
    return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=start)


def next_log_probs(denoise: Denoise, tokens: Symbols, mask_id: int, given_first: bool = False) -> Float[Array, "B N"]:
    """Compute log p(x^i | x^{<i}) of every token (or sub-token), in nats.

    The mask is the start symbol of the network. With `given_first` it reads the first token of a window in its place,
    as the autoregressive baselines of the public MDLM and Prime checkpoints do, and the value of this token is 0.
    """
    time = jnp.zeros(len(tokens))
    if not given_first:
        return token_log_probs(evaluated(denoise, shift_right(tokens, mask_id), time), tokens, mask_id)
    following = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    return jnp.pad(token_log_probs(evaluated(denoise, tokens, time), following, mask_id)[:, :-1], ((0, 0), (1, 0)))


def next_token_log_probs(
    denoise: Denoise, process: MaskedProcess, tokens: Tokens, given_first: bool = False
) -> Float[Array, "B L"]:
    """Compute log p(x^i | x^{<i}) of every token, in nats, a sum over its sub-tokens where it has several."""
    log_probs = next_log_probs(denoise, process.encode(tokens), process.mask_id, given_first)
    return jnp.sum(log_probs.reshape(*tokens.shape, process.subtokens), axis=-1)


@dataclass(frozen=True)
class NextToken:
    """Mean over tokens of -log p(x^i | x^{<i}), in nats per token: an exact likelihood.

    The mask is the start symbol, so that every token of a window is predicted, and autoregressive and diffusion models
    are evaluated on the same positions; with `given_first` the first token is not predicted (see `next_log_probs`). The
    network reads and predicts one symbol a position: a token, or a sub-token of a process of sub-tokens.
    """

    denoiser: Denoiser
    process: MaskedProcess
    given_first: bool = False

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights = batch["tokens"], batch["weights"]
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        weights = jnp.asarray(weights).at[:, 0].set(0.0) if self.given_first else weights
        return summed(-next_token_log_probs(denoise, self.process, tokens, self.given_first) * weights, weights)


@dataclass(frozen=True)
class NextTarget:
    """Mean over target tokens of -log p(y_i | y_<i, x) given a source x, in nats per token.

    Without label smoothing, which acts in training only, this is an exact likelihood. `next_readout(params, tokens,
    encoded, keys=keys)` evaluates a causal decoder; `start_id` is its start symbol.
    """

    encode: Encode
    next_readout: Callable[..., Readout]
    vocabulary: int
    start_id: int
    label_smoothing: float = 0.0

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights = batch["tokens"], batch["weights"]
        encoder_keys, keys = (fold(draws.keys, name) if train else None for name in ("encoder", "dropout"))
        encoded = self.encode(params, *source_of(batch, null_id=None), encoder_keys)
        evaluation = self.next_readout(params, shift_right(tokens, self.start_id), encoded, keys=keys)
        smoothing = self.label_smoothing if train else 0.0
        nats = token_cross_entropy(evaluation, tokens, self.vocabulary, smoothing)
        return summed(nats * weights, weights)
