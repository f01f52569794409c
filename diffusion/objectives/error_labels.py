"""Sequences with errors and their labels, for training an error predictor (G-Star, arXiv 2510.08369).

States are full: they have no masks. A token is one symbol, or a run of sub-tokens that are replaced together.
"""

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import EXCLUDED, draw_two_stage, select_lowest, target_log_probs
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

# Tokens per window that is shuffled. The published code draws 4 to 8; the mean keeps shapes static.
WINDOW = 6


def check_fraction(field: str, value: float) -> None:
    """Check that the value of a config field lies in [0, 1].

    Raises:
      ValueError: otherwise; the message names the field.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{field}: must lie in [0, 1], not {value}")


@dataclass(frozen=True)
class Augment:
    """Corruptions of a sequence, each of a fraction of its tokens (G-Star, arXiv 2510.08369, official code).

    They act in the order of the fields, and may corrupt a token twice. `uniform`: replace by a random token of the
    vocabulary. `unigram`: replace by the token at a random position of the same sequence. `semantic`: replace by
    another token, drawn from the softmax of the cosine similarities of embeddings. `shuffle`: shuffle windows of
    tokens.

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
        """Corrupt a state; each corruption replaces exactly round(fraction n) of an example's n counted tokens."""

        def selection(name: str, fraction: float) -> TokenMask:
            return random_subset(fold(keys, name), counted, rounded_count(fraction, counted))

        if self.uniform:
            tokens = random_tokens(fold(keys, "uniform tokens"), counted.shape[1], process.vocabulary)
            replacements = process.encode(tokens)
            state = replace_tokens(state, selection("uniform", self.uniform), replacements)
        if self.unigram:
            positions = random_positions(fold(keys, "unigram sources"), counted)
            state = replace_tokens(state, selection("unigram", self.unigram), take_tokens(state, positions))
        if self.semantic:
            table = denoiser["embedding"][: process.vocabulary]
            replacements = similar_tokens(fold(keys, "semantic tokens"), state, table)
            state = replace_tokens(state, selection("semantic", self.semantic), replacements)
        if self.shuffle:
            state = take_tokens(state, shuffle_windows(fold(keys, "shuffle"), counted, self.shuffle))
        return state


def rounded_count(fraction: float, counted: TokenMask) -> Int[Array, " B"]:
    """Compute round(fraction n) for the n counted tokens of each example."""
    return jnp.round(fraction * jnp.sum(counted, axis=1)).astype(jnp.int32)


def random_subset(keys: Keys, allowed: Bool[Array | np.ndarray, "B M"], counts: Int[Array, " B"]) -> Bool[Array, "B M"]:
    """Select a uniformly random set of `counts` allowed entries of each row, or all if there are fewer."""
    return select_lowest(jnp.where(allowed, uniform(keys, allowed.shape[1:]), jnp.inf), counts) & allowed


def replace_tokens(state: Symbols, selected: TokenMask, replacements: Symbols) -> Symbols:
    """Replace all symbols of the selected tokens by those of `replacements`."""
    return jnp.where(jnp.repeat(selected, state.shape[1] // selected.shape[1], axis=1), replacements, state)


def take_tokens(state: Symbols, positions: Int[Array, "B L"]) -> Symbols:
    """Gather tokens: token i of the result is token positions[i] of `state`."""
    symbols = state.reshape(*positions.shape, -1)
    return jnp.take_along_axis(symbols, positions[..., None], axis=1).reshape(state.shape)


def random_tokens(keys: Keys, length: int, vocabulary: int) -> Tokens:
    """Draw tokens uniformly."""
    return integers(keys, (length,), 0, vocabulary)


def random_positions(keys: Keys, counted: TokenMask) -> Int[Array, "B L"]:
    """Draw a counted position of the same sequence for every token, uniformly; it may be the token's own."""
    number = jnp.sum(counted, axis=1, keepdims=True)
    rank = (uniform(keys, counted.shape[1:]) * number).astype(jnp.int32)
    order = jnp.argsort(~counted, axis=1, stable=True)
    return jnp.take_along_axis(order, jnp.clip(rank, 0, jnp.maximum(number - 1, 0)), axis=1)


def similar_tokens(keys: Keys, tokens: Tokens, table: Float[Array, "V D"]) -> Tokens:
    """Draw another token for each token, from the softmax of cosine similarities, an array of shape [B, L, V]."""
    unit = table / jnp.maximum(jnp.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    cosines = jnp.matmul(jnp.take(unit, tokens, axis=0, mode="clip"), unit.T)
    same = jnp.arange(len(table))[None, None] == tokens[..., None]
    return draw_two_stage(keys, jnp.where(same, EXCLUDED, cosines))


def shuffle_windows(keys: Keys, counted: TokenMask, fraction: float) -> Int[Array, "B L"]:
    """Draw a permutation of positions that shuffles round(fraction n / WINDOW) of the consecutive windows of tokens.

    n is the number of counted tokens; windows with tokens that do not count are not shuffled.
    """
    size, length = counted.shape
    windows = length // WINDOW
    allowed = jnp.all(counted[:, : windows * WINDOW].reshape(size, windows, WINDOW), axis=-1)
    number = jnp.round(fraction * jnp.sum(counted, axis=1) / WINDOW).astype(jnp.int32)
    selected = random_subset(fold(keys, "windows"), allowed, number)
    order = jnp.argsort(uniform(fold(keys, "order"), (windows, WINDOW)), axis=-1)
    order = jnp.where(selected[..., None], order, jnp.arange(WINDOW)[None, None])
    order = (order + (jnp.arange(windows) * WINDOW)[None, :, None]).reshape(size, -1)
    rest = jnp.broadcast_to(jnp.arange(windows * WINDOW, length)[None], (size, length - windows * WINDOW))
    return jnp.concatenate([order, rest], axis=1)


def corrupt_tokens(keys: Keys, clean: Symbols, counted: TokenMask, process: MaskedProcess, fraction: float) -> Symbols:
    """Replace max(1, round(fraction n)) of the n counted tokens by uniformly random tokens."""
    selected = random_subset(fold(keys, "where"), counted, jnp.maximum(rounded_count(fraction, counted), 1))
    replacements = process.encode(random_tokens(fold(keys, "tokens"), counted.shape[1], process.vocabulary))
    return replace_tokens(clean, selected, replacements)


def fill_masks(draw: Propose, keys: Keys, logits: Logits, noisy: Symbols, mask_id: int) -> Symbols:
    """Take one ancestral step to time 0: draw every masked position from the prediction, at temperature 1."""
    proposal = draw(keys, logits, noisy, jnp.ones(()), jnp.ones(()))
    return jnp.where(noisy == mask_id, proposal.tokens, noisy)


def fill_masks_in_steps(
    denoise: Denoise,
    process: MaskedProcess,
    draw: Propose,
    keys: Keys,
    logits: Logits,
    noisy: Symbols,
    time: Times,
    steps: int,
) -> Symbols:
    """Take `steps` ancestral steps of equal length from `time` to 0; `logits` are those of the first step."""

    def step(state: Symbols, index: Int[Array, ""], logits: Logits) -> Symbols:
        start, end = (time * (1 - (index + offset) / steps) for offset in (0, 1))
        keep_prob = jnp.where(index == steps - 1, 0, process.schedule.masked(end) / process.schedule.masked(start))
        step_keys = fold(keys, index)
        noise = process.noise(fold(step_keys, "stay"), state.shape[1] // process.subtokens, start)
        proposal = fill_masks(draw, fold(step_keys, "token"), logits, state, process.mask_id)
        return jnp.where(noise < keep_prob[:, None], state, proposal)

    def evaluate(state: Symbols, index: Int[Array, ""]) -> tuple[Symbols, None]:
        return step(state, index, denoise(state, time * (1 - index / steps))), None

    return jax.lax.scan(evaluate, step(noisy, jnp.zeros((), jnp.int32), logits), jnp.arange(1, steps))[0]


def unlikely_tokens(
    judge: Denoiser, params: Params, tokens: Tokens, label: Array | np.ndarray | None, vocabulary: int, threshold: float
) -> Bool[Array, "B L"]:
    """Return whether -log p(y_i | y_<i) exceeds `threshold` nats under an autoregressive network.

    The start symbol of the network is the one after the tokens. The first token is never unlikely, and sub-tokens that
    encode no token always are.
    """
    logits = judge(params, shift_right(tokens, vocabulary), jnp.zeros(len(tokens)), label)
    nats = -target_log_probs(logits, tokens, vocabulary)
    first = jnp.arange(tokens.shape[1])[None] == 0
    return ((nats > threshold) | (tokens >= vocabulary)) & ~first
