"""Policies, in which masked samplers differ: they select the positions that are masked after each step.

A masked position that is not selected takes the proposed token, and a known one keeps its token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import select_lowest
from diffusion.rng import fold, gumbel, uniform
from diffusion.sampling.masked.grid import Grid
from diffusion.schedules.masking import inverse
from diffusion.types import Keys, Schedule, Symbols, Times

Extra = Any

# The adaptive variant masks tokens with an error logit above this one, an error probability of 0.269.
ERROR_THRESHOLD = -1.0


class StepInputs(NamedTuple):
    """Inputs of a policy at one step."""

    masked: Bool[Array, "B N"]
    fixed: Bool[Array, "B N"]  # positions of the prompt, which are never masked
    proposal: Symbols  # the proposed token at masked positions, the current token at others
    log_prob: Float[Array, "B N"]  # of the token drawn in this step at every position, in nats (or see `Draw.margin`)
    race: Float[Array, "B N"]  # largest p / E of the low-precision draw (see `Proposal`)
    error_logits: Float[Array, "B N"]  # of the proposal; 0 where the error predictor was not evaluated


# The rule of a policy: select(keys, inputs, row, extra) -> (masks, extra).
Select = Callable[[Keys, StepInputs, Grid, Extra], tuple[Bool[Array, "B N"], Extra]]


@dataclass(frozen=True)
class Policy:
    """A rule that selects the masked positions, with its state and the time at which the network is evaluated.

    `reads` are the positions of which `select` reads the proposal and its probabilities. A sampler computes logits for
    them and for the tokens that it reveals; after "none" the masks are selected before the network is evaluated.
    `select(keys, inputs, row, extra) -> (masks, extra)` with masks [B, N] and the state `extra` of the policy, which
    starts as `init(keys, fixed)`. `time(extra, row, size)` is the network's time [B], by default that of the grid.
    After the selection, `correct(keys, state, proposal, row) -> state` may replace known tokens.
    """

    select: Select
    init: Callable[[Keys, Bool[Array, "B N"]], Extra] = lambda keys, fixed: ()
    time: Callable[[Extra, Grid, int], Times] = lambda extra, row, size: jnp.full(size, row.time)
    correct: Callable[[Keys, Symbols, Symbols, Grid], Symbols] | None = None
    reads: Literal["none", "masked", "all"] = "all"


def ancestral_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """Mask every position by an independent draw, with probability `keep_mask_prob` or `remask_prob` of the grid.

    A masked position stays masked with probability `keep_mask_prob`, and a known one is masked again with probability
    `remask_prob`. Without a remasking rule this is MDLM's reverse step, (1 - alpha_s) / (1 - alpha_t) and 0 (arXiv
    2406.07524); with a rule it is that of ReMDM (see `remasking`).
    """
    noise = uniform(keys, inputs.masked.shape[1:])
    return jnp.where(inputs.masked, noise < row.keep_mask_prob, noise < row.remask_prob), extra


def race_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """Draw tokens and the mask jointly in low precision, as the public MDLM code does.

    The largest of p_v (alpha_s - alpha_t) / E_v over tokens v and of (1 - alpha_s) / E for the mask is taken, each with
    its own truncated exponential noise E. A token with a probability far below 1e-7 / steps is therefore never drawn.
    """
    keep = row.keep_mask_prob
    noise = 1e-10 - jnp.log(uniform(keys, inputs.masked.shape[1:]) + 1e-10)
    return inputs.masked & (keep / noise > inputs.race * (1 - keep)), extra


def exact_count(inputs: StepInputs, row: Grid) -> Int[Array, " B"]:
    """Return the number of masks of the grid at s, at most the current number."""
    free = jnp.sum(~inputs.fixed, axis=1)
    return jnp.minimum(row.masks[free], jnp.sum(inputs.masked, axis=1))


def confidence_step(noise_scale: float) -> Select:
    """Keep the least confident proposals masked, with the exact number of masks of the grid (MaskGIT, LLaDA).

    The confidence is log p of the proposed token, in nats, plus `noise_scale` times Gumbel noise: 0 is greedy, and the
    limit of a large scale is a uniformly random order.
    """

    def select(keys, inputs, row, extra):
        scores = inputs.log_prob
        if noise_scale > 0:
            scores = scores + noise_scale * gumbel(keys, scores.shape[1:], mode="low")
        return select_lowest(jnp.where(inputs.masked, scores, jnp.inf), exact_count(inputs, row)), extra

    return select


def random_order_step(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
    """Keep a uniformly random subset of the masks, with the exact number of masks of the grid."""
    scores = uniform(keys, inputs.masked.shape[1:])
    return select_lowest(jnp.where(inputs.masked, scores, jnp.inf), exact_count(inputs, row)), extra


def first_hitting(schedule: Schedule) -> Policy:
    """Reveal one position per step, at the times of the continuous-time process (first hitting, arXiv 2409.02908).

    Position i is revealed when the mask level 1 - alpha falls below a uniform U_i. Step n reveals the position with the
    n-th largest U_i, and its time is the one that a time-conditioned network reads. Positions of the prompt have no
    event, so an example with n free positions does not change after n steps.
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

    return Policy(select, init, time, reads="none")


def guided_step(temperature: float, adaptive: bool = False, plain: Select = ancestral_step) -> Select:
    """Mask ceil((1 - alpha_s) n) of n free positions, drawn by exp(error logit / temperature).

    This is the step of G-Star (arXiv 2510.08369, section 2.4): the whole sequence is predicted and masked again at the
    level of s, so that every token can be revised. An infinite temperature, or error logits that are all 0, is the
    unguided star-shaped step with an exact number of masks; a temperature of 0 masks the largest error logits.
    `adaptive` instead masks every position with an error logit above `ERROR_THRESHOLD`, and none once the grid has no
    masks. `plain` is the step outside the window of remasking.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        free = ~inputs.fixed
        counts = row.masks[jnp.sum(free, axis=1)]
        if adaptive:
            errors = jnp.sum(free & (inputs.error_logits > ERROR_THRESHOLD), axis=1)
            counts = jnp.where(counts > 0, errors, 0)
        # Positions with the largest sums of score and Gumbel noise are a draw without replacement (Plackett-Luce).
        scores = inputs.error_logits / max(temperature, 1e-6) + gumbel(fold(keys, "gumbel"), free.shape[1:])
        masks = select_lowest(jnp.where(free, -scores, jnp.inf), counts)
        return jnp.where(row.guided, masks, plain(keys, inputs, row, ())[0]), extra

    return select


def reveal_scores(inputs: StepInputs, scores: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """Return -p of the token at every position, at the step in which it was drawn; `scores` has the known ones."""
    return jnp.where(inputs.masked, -jnp.exp(inputs.log_prob), scores)


def initial_scores(keys: Keys, fixed: Bool[Array, "B N"]) -> Float[Array, "B N"]:
    """Return the scores before any position is revealed."""
    return jnp.full(fixed.shape, -jnp.inf)


def confidence_star(temperature: float, plain: Select = ancestral_step) -> Policy:
    """Return `guided_step` with -p of each token when it was revealed as its error logit (arXiv 2510.08369, 2.5)."""

    guided = guided_step(temperature, plain=plain)

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        scores = reveal_scores(inputs, extra)
        masks, _ = guided(keys, inputs._replace(error_logits=scores), row, ())
        return masks, jnp.where(masks, -jnp.inf, scores)

    return Policy(select, initial_scores, reads="masked")


def confidence_remdm() -> Policy:
    """Divide sigma_max among known positions by softmax(-p), p when revealed (ReMDM-conf, arXiv 2503.00307).

    At most one token per step and example is masked again in expectation. The rule of the grid is `remasking.shared`.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        known = ~inputs.masked & ~inputs.fixed
        # The softmax of a row of -inf, as in the first step, would be NaN.
        share = jax.nn.softmax(jnp.where(known, extra, -1e9), axis=1) * known
        noise = uniform(keys, inputs.masked.shape[1:])
        masks = noise < jnp.where(inputs.masked, row.keep_mask_prob, share * row.remask_prob)
        return masks, jnp.where(masks, -jnp.inf, reveal_scores(inputs, extra))

    return Policy(select, initial_scores, reads="masked")


def path_planning(eta: float, planner: bool = False, random: bool = False) -> Select:
    """Mask the floor(n (1 - kappa)) lowest scores of n free positions (P2, arXiv 2502.03540).

    The score of a masked position is log p of its proposed token. That of a known position is eta log p of the token
    drawn there in this step or, with a `planner`, eta log sigmoid(-error logit). With eta = 0 no token is masked again;
    a larger eta masks more known tokens. With `random` every log p is log U of a uniform U, and with the margin of
    `Draw`, which is not negative, a larger eta masks fewer known tokens. The counts of the grid are `p2_mask_counts`.
    Outside the window of remasking the step is `ancestral_step`.
    """

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        # 1 - U is never 0, whose logarithm times eta = 0 would be NaN.
        drawn = jnp.log1p(-uniform(fold(keys, "score"), inputs.masked.shape[1:])) if random else inputs.log_prob
        known = jax.nn.log_sigmoid(-inputs.error_logits) if planner else drawn
        scores = jnp.where(inputs.masked, drawn, eta * known)
        counts = row.masks[jnp.sum(~inputs.fixed, axis=1)]
        masks = select_lowest(jnp.where(inputs.fixed, jnp.inf, scores), counts)
        return jnp.where(row.guided, masks, ancestral_step(keys, inputs, row, ())[0]), extra

    return select
