"""Policies: which positions are masks after a step.

A policy sees the current state and a full proposal and returns where the mask stands next; what it unmasks takes the
proposal, what it leaves alone keeps its token. Every masked sampler is one such function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import lowest
from diffusion.rng import fold, gumbel, uniform
from diffusion.sampling.masked.grid import Grid
from diffusion.schedules.masking import inverse
from diffusion.types import Keys, Schedule, Symbols, Times

Extra = Any

# The logit above which the adaptive variant takes a token for wrong: an error probability of 0.269.
ERROR_THRESHOLD = -1.0


class StepInputs(NamedTuple):
    """What a policy may look at."""

    masked: Bool[Array, "B N"]
    fixed: Bool[Array, "B N"]  # prompt: never masked
    proposal: Symbols  # the proposed token at masked positions, the current token elsewhere
    log_prob: Float[Array, "B N"]  # of the freshly drawn token at every position, in nats
    race: Float[Array, "B N"]
    error_logits: Float[Array, "B N"]  # logits that a position of the proposal is wrong; 0 where nobody was asked


def no_state(keys: Keys, fixed: Bool[Array, "B N"]) -> Extra:
    """For policies that remember nothing."""
    return ()


def grid_time(extra: Extra, row: Grid, size: int) -> Times:
    """The grid's time, the same for every example."""
    return jnp.full(size, row.time)


@dataclass(frozen=True)
class Policy:
    """`select(keys, inputs, row, extra) -> (masks, extra)`, with its memory and the time that the network is told.

    `correct(keys, state, proposal, row) -> state` may then revise what is known, which no choice of masks can.
    """

    select: Callable[[Keys, StepInputs, Grid, Extra], tuple[Bool[Array, "B N"], Extra]]
    init: Callable[[Keys, Bool[Array, "B N"]], Extra] = no_state
    time: Callable[[Extra, Grid, int], Times] = grid_time
    correct: Callable[[Keys, Symbols, Symbols, Grid], Symbols] | None = None


def ancestral_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """A coin for every position: masks stay masks with probability `stay`, the others become some with `remask`.

    Without a rule of remasking this is MDLM's reverse step, stay = (1 - alpha_s)/(1 - alpha_t) (arXiv 2406.07524); with
    one it is ReMDM's (see `remask`).
    """
    noise = uniform(keys, inputs.masked.shape[1:])
    return jnp.where(inputs.masked, noise < row.keep_mask_prob, noise < row.remask_prob), extra


def race_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """The joint low-precision draw of the public MDLM code: the mask races against the tokens.

    Symbols carry p_v (alpha_s - alpha_t) and the mask 1 - alpha_s, each over its own truncated exponential noise, so
    that a token far below 1e-7 / steps can never win.
    """
    stay = row.keep_mask_prob
    noise = 1e-10 - jnp.log(uniform(keys, inputs.masked.shape[1:]) + 1e-10)
    return inputs.masked & (stay / noise > inputs.race * (1 - stay)), extra


def exact_count(inputs: StepInputs, row: Grid) -> Int[Array, " B"]:
    """How many masks the grid wants at s, never more than there are."""
    free = jnp.sum(~inputs.fixed, axis=1)
    return jnp.minimum(row.masks[free], jnp.sum(inputs.masked, axis=1))


def confidence_step(noise_scale: float) -> Callable:
    """Keep the least confident proposals masked, exactly as many as the grid wants (MaskGIT, LLaDA).

    The score is log p of the proposed token plus `noise_scale` Gumbel noise; at 0 it is greedy, towards infinity it
    is a uniformly random order.
    """

    def select(keys, inputs, row, extra):
        scores = inputs.log_prob
        if noise_scale > 0:
            scores = scores + noise_scale * gumbel(keys, scores.shape[1:], mode="low")
        return lowest(jnp.where(inputs.masked, scores, jnp.inf), exact_count(inputs, row)), extra

    return select


def random_order_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """A uniformly random subset of the masks stays, exactly as many as the grid wants."""
    scores = uniform(keys, inputs.masked.shape[1:])
    return lowest(jnp.where(inputs.masked, scores, jnp.inf), exact_count(inputs, row)), extra


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

    def select(keys, inputs, row, extra):
        return inputs.masked & (extra[1] != row.index), extra

    return Policy(select, init, time)


def gumbel_top(keys: Keys, scores: Float[Array, "B N"], free: Bool[Array, "B N"], counts: Array) -> Bool[Array, "B N"]:
    """Draw `counts` of the free positions without replacement, weighted by exp(score) (Plackett-Luce)."""
    noise = gumbel(fold(keys, "gumbel"), scores.shape[1:])
    return lowest(jnp.where(free, -(scores + noise), jnp.inf), counts)


def guided_step(temperature: float, adaptive: bool = False, plain: Callable = ancestral_step) -> Callable:
    """Mask exactly ceil((1 - alpha_s) n) of n free positions, drawn by exp(error logit / temperature) (section 2.4).

    Infinite temperature, or errors that are all 0, is the unguided star-shaped step of an exact count; at 0 the most
    suspicious positions are taken. `adaptive` masks every position whose error logit is above -1 instead, and none
    once the schedule wants none. `plain` is the step outside the window.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        free = ~inputs.fixed
        counts = row.masks[jnp.sum(free, axis=1)]
        if adaptive:
            suspects = jnp.sum(free & (inputs.error_logits > ERROR_THRESHOLD), axis=1)
            counts = jnp.where(counts > 0, suspects, 0)
        chosen = gumbel_top(keys, inputs.error_logits / max(temperature, 1e-6), free, counts)
        return jnp.where(row.guided, chosen, plain(keys, inputs, row, ())[0]), extra

    return select


def remembered(inputs: StepInputs, known: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """-p of every position of the proposal: of its fresh token, or as it was when its token was revealed."""
    return jnp.where(inputs.masked, -jnp.exp(inputs.log_prob), known)


def forget(masks: Bool[Array, "B N"], confidence: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """Positions that are masked again have no confidence."""
    return jnp.where(masks, -jnp.inf, confidence)


def unknown(keys: Keys, fixed: Bool[Array, "B N"]) -> Float[Array, "B N"]:
    """Before anything is revealed."""
    return jnp.full(fixed.shape, -jnp.inf)


def confidence_star(temperature: float, plain: Callable = ancestral_step) -> Policy:
    """`guided_step` by -p of each token at the time it was revealed in place of an error logit (section 2.5)."""

    guided = guided_step(temperature, plain=plain)

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        confidence = remembered(inputs, extra)
        masks, _ = guided(keys, inputs._replace(error_logits=confidence), row, ())
        return masks, forget(masks, confidence)

    return Policy(select, unknown)


def confidence_remdm() -> Policy:
    """ReMDM-conf: known positions share sigma_max in proportion to exp(-p when revealed) (arXiv 2503.00307).

    At most one token a step is remasked in expectation. The grid's rule is `remask.shared`.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        known = ~inputs.masked & ~inputs.fixed
        # A large negative number, not -inf: the softmax of a row of -inf, the first step's, is NaN.
        share = jax.nn.softmax(jnp.where(known, extra, -1e9), axis=1) * known
        noise = uniform(keys, inputs.masked.shape[1:])
        masks = noise < jnp.where(inputs.masked, row.keep_mask_prob, share * row.remask_prob)
        return masks, forget(masks, remembered(inputs, extra))

    return Policy(select, unknown)


def path_planning(eta: float, planner: bool = False) -> Callable:
    """P2: mask the floor(n (1 - j / N)) positions that score lowest after step j (arXiv 2502.03540).

    A masked position scores log p of its fresh token; a known one eta times that of the token that would now be drawn
    there or, with a `planner`, of its token being right, log sigmoid(-error logit). 0 never remasks, more than 1 does
    so more. The grid's counts are `kept_masks`.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        judged = jax.nn.log_sigmoid(-inputs.error_logits) if planner else inputs.log_prob
        scores = jnp.where(inputs.masked, inputs.log_prob, eta * judged)
        counts = row.masks[jnp.sum(~inputs.fixed, axis=1)]
        return lowest(jnp.where(inputs.fixed, jnp.inf, scores), counts), extra

    return select
