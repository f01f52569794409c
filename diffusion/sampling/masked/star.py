"""Policies that may take back what is known: star-shaped and G-Star's steps, P2, and confidence-guided remasking.

A star-shaped step guesses the whole sequence and masks it anew at the level of s, so that every token can be revised
(G-Star, arXiv 2510.08369). Outside their window these policies take MDLM's step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import lowest
from diffusion.rng import fold, gumbel, uniform
from diffusion.sampling.masked.grid import Grid
from diffusion.sampling.masked.policies import Extra, Policy, StepInputs, ancestral_step
from diffusion.types import Keys

# The logit above which the adaptive variant takes a token for wrong: an error probability of 0.269.
ERROR_THRESHOLD = -1.0


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

    def select(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        free = ~view.fixed
        counts = row.masks[jnp.sum(free, axis=1)]
        if adaptive:
            suspects = jnp.sum(free & (view.errors > ERROR_THRESHOLD), axis=1)
            counts = jnp.where(counts > 0, suspects, 0)
        chosen = gumbel_top(keys, view.errors / max(temperature, 1e-6), free, counts)
        return jnp.where(row.guided, chosen, plain(keys, view, row, ())[0]), extra

    return select


def remembered(view: StepInputs, known: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """-p of every position of the proposal: of its fresh token, or as it was when its token was revealed."""
    return jnp.where(view.masked, -jnp.exp(view.log_prob), known)


def forget(masks: Bool[Array, "B N"], confidence: Float[Array, "B N"]) -> Float[Array, "B N"]:
    """Positions that are masked again have no confidence."""
    return jnp.where(masks, -jnp.inf, confidence)


def unknown(keys: Keys, fixed: Bool[Array, "B N"]) -> Float[Array, "B N"]:
    """Before anything is revealed."""
    return jnp.full(fixed.shape, -jnp.inf)


def confidence_star(temperature: float, plain: Callable = ancestral_step) -> Policy:
    """`guided_step` by -p of each token at the time it was revealed in place of an error logit (section 2.5)."""

    guided = guided_step(temperature, plain=plain)

    def select(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        confidence = remembered(view, extra)
        masks, _ = guided(keys, view._replace(errors=confidence), row, ())
        return masks, forget(masks, confidence)

    return Policy(select, unknown)


def confidence_remdm() -> Policy:
    """ReMDM-conf: known positions share sigma_max in proportion to exp(-p when revealed) (arXiv 2503.00307).

    At most one token a step is remasked in expectation. The grid's rule is `remask.shared`.
    """

    def select(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        known = ~view.masked & ~view.fixed
        # A large negative number, not -inf: the softmax of a row of -inf, the first step's, is NaN.
        share = jax.nn.softmax(jnp.where(known, extra, -1e9), axis=1) * known
        noise = uniform(keys, view.masked.shape[1:])
        masks = noise < jnp.where(view.masked, row.stay, share * row.remask)
        return masks, forget(masks, remembered(view, extra))

    return Policy(select, unknown)


def path_planning(eta: float, planner: bool = False) -> Callable:
    """P2: mask the floor(n (1 - j / N)) positions that score lowest after step j (arXiv 2502.03540).

    A masked position scores log p of its fresh token; a known one eta times that of the token that would now be drawn
    there or, with a `planner`, of its token being right, log sigmoid(-error logit). 0 never remasks, more than 1 does
    so more. The grid's counts are `kept_masks`.
    """

    def select(keys: Keys, view: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        judged = jax.nn.log_sigmoid(-view.errors) if planner else view.log_prob
        scores = jnp.where(view.masked, view.log_prob, eta * judged)
        counts = row.masks[jnp.sum(~view.fixed, axis=1)]
        return lowest(jnp.where(view.fixed, jnp.inf, scores), counts), extra

    return select
