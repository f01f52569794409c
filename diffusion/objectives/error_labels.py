"""Sequences with errors and their labels, for training an error predictor (G-Star, arXiv 2510.08369).

States are full: they have no masks. A token is one symbol, or a run of sub-tokens that are replaced together.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from diffusion.categorical import select_lowest
from diffusion.objectives.autoregressive import next_log_probs
from diffusion.readout import Readout, draw_at, evaluated
from diffusion.rng import fold, integers, uniform
from diffusion.types import Denoise, Keys, MaskedProcess, Propose, Symbols, Times, TokenMask, Tokens


def replace_tokens(state: Symbols, selected: TokenMask, replacements: Symbols) -> Symbols:
    """Replace all symbols of the selected tokens by those of `replacements`."""
    return jnp.where(jnp.repeat(selected, state.shape[1] // selected.shape[1], axis=1), replacements, state)


def corrupt_tokens(keys: Keys, clean: Symbols, counted: TokenMask, process: MaskedProcess, fraction: float) -> Symbols:
    """Replace max(1, round(fraction n)) of the n counted tokens by uniformly random tokens."""
    number = jnp.maximum(jnp.round(fraction * jnp.sum(counted, axis=1)).astype(jnp.int32), 1)
    ranks = jnp.where(counted, uniform(fold(keys, "where"), counted.shape[1:]), jnp.inf)
    replacements = process.encode(integers(fold(keys, "tokens"), counted.shape[1:], 0, process.vocabulary))
    return replace_tokens(clean, select_lowest(ranks, number) & counted, replacements)


def fill_masks(draw: Propose, keys: Keys, evaluation: Readout, noisy: Symbols, mask_id: int) -> Symbols:
    """Take one ancestral step to time 0: draw every masked position from the prediction, at temperature 1."""
    masked = jnp.asarray(noisy) == mask_id
    proposal = draw_at(draw, keys, evaluation, noisy, masked, jnp.ones(()), jnp.ones(()))
    return jnp.where(masked, proposal.tokens, noisy)


def fill_masks_in_steps(
    denoise: Denoise,
    process: MaskedProcess,
    draw: Propose,
    keys: Keys,
    evaluation: Readout,
    noisy: Symbols,
    time: Times,
    steps: int,
) -> Symbols:
    """Take `steps` ancestral steps of equal length from `time` to 0; `evaluation` is that of the first step."""

    def step(state: Symbols, index: Int[Array, ""], evaluation: Readout) -> Symbols:
        start, end = (time * (1 - (index + offset) / steps) for offset in (0, 1))
        keep_prob = jnp.where(index == steps - 1, 0, process.schedule.masked(end) / process.schedule.masked(start))
        step_keys = fold(keys, index)
        noise = process.noise(fold(step_keys, "stay"), state.shape[1] // process.subtokens, start)
        proposal = fill_masks(draw, fold(step_keys, "token"), evaluation, state, process.mask_id)
        return jnp.where(noise < keep_prob[:, None], state, proposal)

    def evaluate(state: Symbols, index: Int[Array, ""]) -> tuple[Symbols, None]:
        return step(state, index, evaluated(denoise, state, time * (1 - index / steps))), None

    return jax.lax.scan(evaluate, step(noisy, jnp.zeros((), jnp.int32), evaluation), jnp.arange(1, steps))[0]


def unlikely_tokens(judge: Denoise, tokens: Tokens, vocabulary: int, threshold: float) -> Bool[Array, "B L"]:
    """Return whether -log p(y_i | y_<i) exceeds `threshold` nats under an autoregressive network.

    The start symbol of the network is the one after the tokens. The first token is never unlikely, and sub-tokens that
    encode no token always are.
    """
    nats = -next_log_probs(judge, tokens, vocabulary)
    first = jnp.arange(tokens.shape[1])[None] == 0
    return ((nats > threshold) | (tokens >= vocabulary)) & ~first
