"""Sequences with mistakes in them, and which tokens are the mistakes: what an error predictor learns from (G-Star).

A state is full: it has no masks. Its tokens are single symbols or runs of digits, which are kept together throughout.
"""

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import EXCLUDED, draw_two_stage, lowest, target_log_probs
from diffusion.objectives.autoregressive import shift_right
from diffusion.rng import fold, integers, uniform
from diffusion.types import (
    Denoise,
    Denoiser,
    Keys,
    Logits,
    MaskedProcess,
    Params,
    Propose,
    Symbols,
    Times,
    TokenMask,
    Tokens,
)

# Tokens in a window that is shuffled: the mean of the published code, which draws 4 to 8; one length, one shape.
WINDOW = 6


def check_fraction(field: str, value: float) -> None:
    """Raise ValueError that names the config field of a fraction outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{field}: must lie in [0, 1], not {value}")


@dataclass(frozen=True)
class Augment:
    """Fractions of a sequence's tokens that are spoilt once more, in this order; tokens may be hit twice.

    `uniform`: a token of the vocabulary; `unigram`: the token of another place of the same sequence; `semantic`: a
    token drawn from the softmax of cosine similarities of embeddings, itself excluded; `shuffle`: windows of tokens in
    random order (arXiv 2510.08369, official code).

    Raises:
      ValueError: for a fraction outside [0, 1].
    """

    uniform: float = 0.0
    unigram: float = 0.0
    semantic: float = 0.0
    shuffle: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            check_fraction(f"predictor.augment.{field.name}", getattr(self, field.name))

    def __call__(
        self, keys: Keys, state: Symbols, counted: TokenMask, process: MaskedProcess, denoiser: Params
    ) -> Symbols:
        """The spoilt state; exactly round(fraction n) of an example's n counted tokens are replaced each time."""

        def chosen(name: str, fraction: float) -> TokenMask:
            return choose(fold(keys, name), counted, share(fraction, counted))

        if self.uniform:
            fresh = process.encode(any_tokens(fold(keys, "uniform tokens"), counted.shape[1], process.vocabulary))
            state = replace_tokens(state, chosen("uniform", self.uniform), fresh)
        if self.unigram:
            sources = any_positions(fold(keys, "unigram sources"), counted)
            state = replace_tokens(state, chosen("unigram", self.unigram), take_tokens(state, sources))
        if self.semantic:
            fresh = similar(fold(keys, "semantic tokens"), state, denoiser["embedding"][: process.vocabulary])
            state = replace_tokens(state, chosen("semantic", self.semantic), fresh)
        if self.shuffle:
            state = take_tokens(state, shuffled_windows(fold(keys, "shuffle"), counted, self.shuffle))
        return state


def share(fraction: float, counted: TokenMask) -> Int[Array, " B"]:
    """The fraction of an example's counted places, rounded."""
    return jnp.round(fraction * jnp.sum(counted, axis=1)).astype(jnp.int32)


def choose(keys: Keys, allowed: Bool[Array | np.ndarray, "B M"], counts: Int[Array, " B"]) -> Bool[Array, "B M"]:
    """A uniformly random set of `counts` allowed places; all of them where they are fewer."""
    return lowest(jnp.where(allowed, uniform(keys, allowed.shape[1:]), jnp.inf), counts) & allowed


def replace_tokens(state: Symbols, chosen: TokenMask, fresh: Symbols) -> Symbols:
    """The state with all symbols of the chosen tokens taken from `fresh`."""
    return jnp.where(jnp.repeat(chosen, state.shape[1] // chosen.shape[1], axis=1), fresh, state)


def take_tokens(state: Symbols, positions: Int[Array, "B L"]) -> Symbols:
    """The state whose i-th token is the one at positions[i]."""
    symbols = state.reshape(*positions.shape, -1)
    return jnp.take_along_axis(symbols, positions[..., None], axis=1).reshape(state.shape)


def any_tokens(keys: Keys, length: int, vocabulary: int) -> Tokens:
    """Tokens drawn uniformly."""
    return integers(keys, (length,), 0, vocabulary)


def any_positions(keys: Keys, counted: TokenMask) -> Int[Array, "B L"]:
    """For every token a counted position of its sequence, uniformly, itself included."""
    number = jnp.sum(counted, axis=1, keepdims=True)
    rank = (uniform(keys, counted.shape[1:]) * number).astype(jnp.int32)
    order = jnp.argsort(~counted, axis=1, stable=True)
    return jnp.take_along_axis(order, jnp.clip(rank, 0, jnp.maximum(number - 1, 0)), axis=1)


def similar(keys: Keys, tokens: Tokens, table: Float[Array, "V D"]) -> Tokens:
    """Another token for each, from the softmax of cosine similarities; an array as large as logits."""
    unit = table / jnp.maximum(jnp.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    cosines = jnp.matmul(jnp.take(unit, tokens, axis=0, mode="clip"), unit.T)
    itself = jnp.arange(len(table))[None, None] == tokens[..., None]
    return draw_two_stage(keys, jnp.where(itself, EXCLUDED, cosines))


def shuffled_windows(keys: Keys, counted: TokenMask, fraction: float) -> Int[Array, "B L"]:
    """Positions after round(fraction n / 6) of the consecutive windows of six counted tokens were shuffled."""
    size, length = counted.shape
    windows = length // WINDOW
    whole = jnp.all(counted[:, : windows * WINDOW].reshape(size, windows, WINDOW), axis=-1)
    number = jnp.round(fraction * jnp.sum(counted, axis=1) / WINDOW).astype(jnp.int32)
    chosen = choose(fold(keys, "windows"), whole, number)
    order = jnp.argsort(uniform(fold(keys, "order"), (windows, WINDOW)), axis=-1)
    order = jnp.where(chosen[..., None], order, jnp.arange(WINDOW)[None, None])
    order = (order + (jnp.arange(windows) * WINDOW)[None, :, None]).reshape(size, -1)
    rest = jnp.broadcast_to(jnp.arange(windows * WINDOW, length)[None], (size, length - windows * WINDOW))
    return jnp.concatenate([order, rest], axis=1)


def corrupted(keys: Keys, clean: Symbols, counted: TokenMask, process: MaskedProcess, fraction: float) -> Symbols:
    """The clean state with max(1, round(fraction n)) of n counted tokens drawn anew, uniformly."""
    chosen = choose(fold(keys, "where"), counted, jnp.maximum(share(fraction, counted), 1))
    fresh = process.encode(any_tokens(fold(keys, "tokens"), counted.shape[1], process.vocabulary))
    return replace_tokens(clean, chosen, fresh)


def fill(draw: Propose, keys: Keys, logits: Logits, noisy: Symbols, mask_id: int) -> Symbols:
    """One ancestral step to time 0: every mask takes a draw from the prediction as it is, at temperature 1."""
    proposal = draw(keys, logits, noisy, jnp.ones(()), jnp.ones(()))
    return jnp.where(noisy == mask_id, proposal.tokens, noisy)


def fill_in_steps(
    denoise: Denoise,
    process: MaskedProcess,
    draw: Propose,
    keys: Keys,
    logits: Logits,
    noisy: Symbols,
    time: Times,
    steps: int,
) -> Symbols:
    """The end of `steps` ancestral steps from `noisy`, equal in time, down to 0; `logits` are those of the first."""

    def step(state: Symbols, index: Int[Array, ""], logits: Logits) -> Symbols:
        start, end = (time * (1 - (index + ends) / steps) for ends in (0, 1))
        stay = jnp.where(index == steps - 1, 0, process.schedule.masked(end) / process.schedule.masked(start))
        step_keys = fold(keys, index)
        noise = process.noise(fold(step_keys, "stay"), state.shape[1] // process.subtokens, start)
        proposal = fill(draw, fold(step_keys, "token"), logits, state, process.mask_id)
        return jnp.where(noise < stay[:, None], state, proposal)

    def evaluate(state: Symbols, index: Int[Array, ""]) -> tuple[Symbols, None]:
        return step(state, index, denoise(state, time * (1 - index / steps))), None

    return jax.lax.scan(evaluate, step(noisy, jnp.zeros((), jnp.int32), logits), jnp.arange(1, steps))[0]


def unlikely(
    judge: Denoiser, params: Params, tokens: Tokens, label: Array | np.ndarray | None, vocabulary: int, threshold: float
) -> Bool[Array, "B L"]:
    """Where -log p(y_i | y_<i) exceeds `threshold` nats under an autoregressive network; never the first token.

    The network reads the symbol after the tokens as its start. Digits that are no token's count as unlikely.
    """
    logits = judge(params, shift_right(tokens, vocabulary), jnp.zeros(len(tokens)), label)
    nats = -target_log_probs(logits, tokens, vocabulary)
    first = jnp.arange(tokens.shape[1])[None] == 0
    return ((nats > threshold) | (tokens >= vocabulary)) & ~first
