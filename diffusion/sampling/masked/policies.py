"""Policies: which positions are masks after a step.

A policy sees the current state and a full proposal and returns where the mask stands next; what it unmasks takes the
proposal, what it leaves alone keeps its token. Every masked sampler is one such function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import lowest
from diffusion.rng import fold, gumbel, uniform
from diffusion.sampling.masked.grid import Grid
from diffusion.schedules.masking import inverse
from diffusion.types import Keys, Schedule, Symbols, Times

Extra = Any


class StepInputs(NamedTuple):
    """What a policy may look at."""

    masked: Bool[Array, "B N"]
    fixed: Bool[Array, "B N"]  # prompt: never masked
    proposal: Symbols  # the proposed token at masked positions, the current token elsewhere
    log_prob: Float[Array, "B N"]  # of the freshly drawn token at every position, in nats
    race: Float[Array, "B N"]
    errors: Float[Array, "B N"]  # logits that a position of the proposal is wrong; 0 where nobody was asked


def no_state(keys: Keys, fixed: Bool[Array, "B N"]) -> Extra:
    """For policies that remember nothing."""
    return ()


def grid_time(extra: Extra, row: Grid, size: int) -> Times:
    """The grid's time, the same for every example."""
    return jnp.full(size, row.time)


@dataclass(frozen=True)
class Policy:
    """`select(keys, view, row, extra) -> (masks, extra)`, with its memory and the time that the network is told.

    `correct(keys, state, proposal, row) -> state` may then revise what is known, which no choice of masks can.
    """

    select: Callable[[Keys, StepInputs, Grid, Extra], tuple[Bool[Array, "B N"], Extra]]
    init: Callable[[Keys, Bool[Array, "B N"]], Extra] = no_state
    time: Callable[[Extra, Grid, int], Times] = grid_time
    correct: Callable[[Keys, Symbols, Symbols, Grid], Symbols] | None = None


def ancestral_step(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """A coin for every position: masks stay masks with probability `stay`, the others become some with `remask`.

    Without a rule of remasking this is MDLM's reverse step, stay = (1 - alpha_s)/(1 - alpha_t) (arXiv 2406.07524); with
    one it is ReMDM's (see `remask`).
    """
    noise = uniform(keys, view.masked.shape[1:])
    return jnp.where(view.masked, noise < row.stay, noise < row.remask), extra


def race_step(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """The joint low-precision draw of the public MDLM code: the mask races against the tokens.

    Symbols carry p_v (alpha_s - alpha_t) and the mask 1 - alpha_s, each over its own truncated exponential noise, so
    that a token far below 1e-7 / steps can never win.
    """
    stay = row.stay
    noise = 1e-10 - jnp.log(uniform(keys, view.masked.shape[1:]) + 1e-10)
    return view.masked & (stay / noise > view.race * (1 - stay)), extra


def exact_count(view: StepInputs, row: Grid) -> Int[Array, " B"]:
    """How many masks the grid wants at s, never more than there are."""
    free = jnp.sum(~view.fixed, axis=1)
    return jnp.minimum(row.masks[free], jnp.sum(view.masked, axis=1))


def confidence_step(noise_scale: float) -> Callable:
    """Keep the least confident proposals masked, exactly as many as the grid wants (MaskGIT, LLaDA).

    The score is log p of the proposed token plus `noise_scale` Gumbel noise; at 0 it is greedy, towards infinity it
    is a uniformly random order.
    """

    def select(keys, view, row, extra):
        scores = view.log_prob
        if noise_scale > 0:
            scores = scores + noise_scale * gumbel(keys, scores.shape[1:], mode="low")
        return lowest(jnp.where(view.masked, scores, jnp.inf), exact_count(view, row)), extra

    return select


def random_order_step(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """A uniformly random subset of the masks stays, exactly as many as the grid wants."""
    scores = uniform(keys, view.masked.shape[1:])
    return lowest(jnp.where(view.masked, scores, jnp.inf), exact_count(view, row)), extra


def first_hitting(schedule: Schedule) -> Policy:
    """Event by event: step n reveals the one position whose reveal time is the n-th largest (arXiv 2409.02908).

    Position i is revealed when the mask level 1 - alpha falls below a uniform U_i; sorting the U_i gives the order,
    and the n-th of them gives the exact time of the event, for a network that reads time. Prompted positions sort
    last and have no event, so an example with n free positions is idle after n steps.
    """

    def init(keys, fixed):
        levels = uniform(fold(keys, "reveal"), fixed.shape[1:])
        levels = jnp.where(fixed, -1.0, levels)
        return -jnp.sort(-levels, axis=1), jnp.argsort(jnp.argsort(-levels, axis=1), axis=1)

    def time(extra, row, size):
        level = jnp.maximum(extra[0][:, row.index], 0)
        top = 1 - schedule.alpha(jnp.ones(()))
        return inverse(schedule, 1 - level * top)

    def select(keys, view, row, extra):
        return view.masked & (extra[1] != row.index), extra

    return Policy(select, init, time)
