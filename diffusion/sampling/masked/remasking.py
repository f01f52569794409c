"""Remasking rules: the probability that a known position is masked again, as tables computed on the host.

A step goes from time t to an earlier time s < t. In ReMDM (arXiv 2503.00307) a known position is masked again with
probability sigma, and a masked position stays masked with probability (1 - alpha_s - sigma alpha_t) / (1 - alpha_t).
For every sigma in [0, sigma_max] the marginals q(z_t | x) are those of the schedule. sigma = 0 is MDLM.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class StepAlphas(NamedTuple):
    """Inputs of a remasking rule, per step and in float64."""

    alpha: Float[np.ndarray, " N"]  # alpha_t, at the beginning of the step
    next_alpha: Float[np.ndarray, " N"]  # alpha_s, at its end
    window: Bool[np.ndarray, " N"]  # whether the step may mask known positions again


class Rates(NamedTuple):
    """Probabilities per step that a masked position stays masked, and that a known position is masked again."""

    keep_mask_prob: Float[np.ndarray, " N"]
    remask_prob: Float[np.ndarray, " N"]


Rule = Callable[[StepAlphas], Rates]


def divide_or_one(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the quotient, and 1 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.ones_like(numerator), where=denominator > 0)


def max_sigma(levels: StepAlphas) -> Float[np.ndarray, " N"]:
    """Return sigma_max = min(1, (1 - alpha_s) / alpha_t) (arXiv 2503.00307)."""
    return np.minimum(1, divide_or_one(1 - levels.next_alpha, levels.alpha))


def remdm(levels: StepAlphas, sigma: Float[np.ndarray, " N"]) -> Rates:
    """Return the probabilities of ReMDM for `sigma` in the window and 0 outside of it (arXiv 2503.00307)."""
    sigma = np.where(levels.window, np.minimum(sigma, max_sigma(levels)), 0)
    keep = (1 - levels.next_alpha - sigma * levels.alpha) / (1 - levels.alpha)
    return Rates(np.clip(keep, 0, 1), sigma)


def none(levels: StepAlphas) -> Rates:
    """Return sigma = 0, with which a known position stays known (MDLM)."""
    return remdm(levels, np.zeros_like(levels.alpha))


def cap(eta: float) -> Rule:
    """Return the rule sigma = min(eta, sigma_max); on the plateau of a loop schedule it is ReMDM-loop."""
    return lambda levels: remdm(levels, np.full_like(levels.alpha, eta))


def rescale(eta: float) -> Rule:
    """Return the rule sigma = eta sigma_max."""
    return lambda levels: remdm(levels, eta * max_sigma(levels))


def shared(levels: StepAlphas) -> Rates:
    """Return sigma_max for a policy that divides it among the known positions; masks are revealed as in MDLM."""
    return Rates(none(levels).keep_mask_prob, np.where(levels.window, max_sigma(levels), 0))


def star(levels: StepAlphas) -> Rates:
    """Return sigma = 1 - alpha_s, which masks every position at the level of s (arXiv 2510.08369, section 2.2)."""
    return remdm(levels, 1 - levels.next_alpha)


def forward_backward(levels: StepAlphas) -> Rates:
    """Return sigma = (alpha_s - alpha_t) / alpha_t, a forward step after each reverse step (arXiv 2205.14987)."""
    return remdm(levels, divide_or_one(levels.next_alpha - levels.alpha, levels.alpha))


def discrete_flow(levels: StepAlphas) -> Rates:
    """Return the corrector of discrete flow matching (arXiv 2407.15595), as in the code of ReMDM, in terms of alpha.

    With t = 1 - alpha_t, h = alpha_s - alpha_t, A = 10 t^(1/4) (1 - t)^(1/4) + 1 and B = A - 1, a masked position is
    revealed with probability A h / t and a known one is masked again with probability B h / (1 - t). h is reduced so
    that the two probabilities do not sum to more than 1. The first step is that of MDLM.
    """
    level, alive = 1 - levels.alpha, np.maximum(levels.alpha, 1e-12)
    forward = 10 * (level * levels.alpha) ** 0.25 + 1
    rates = forward / level, (forward - 1) / alive
    width = np.minimum(levels.next_alpha - levels.alpha, 1 / (rates[0] + rates[1]))
    plain = none(levels)
    active = levels.window & (np.arange(len(level)) > 0)
    return Rates(
        np.where(active, 1 - width * rates[0], plain.keep_mask_prob),
        np.where(active, width * rates[1], plain.remask_prob),
    )
