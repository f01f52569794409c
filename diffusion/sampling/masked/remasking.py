"""Rules of remasking: with which probability a known position becomes a mask again, as tables made on the host.

One step goes from time t to the cleaner s. Under ReMDM (arXiv 2503.00307) a known position becomes a mask with
probability sigma and a mask stays one with probability (1 - alpha_s - sigma alpha_t) / (1 - alpha_t); for every sigma
in [0, sigma_max] the masked fraction follows the schedule and q(z_t | x) keeps its marginals. sigma = 0 is MDLM.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class StepAlphas(NamedTuple):
    """What a rule knows of every step, in float64: survival probabilities, and whether remasking is on."""

    alpha: Float[np.ndarray, " N"]
    next_alpha: Float[np.ndarray, " N"]
    window: Bool[np.ndarray, " N"]


class Rates(NamedTuple):
    """Probabilities that a mask stays one, and that a known position becomes one."""

    keep_mask_prob: Float[np.ndarray, " N"]
    remask_prob: Float[np.ndarray, " N"]


Rule = Callable[[StepAlphas], Rates]


def over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, and 1 where below is 0."""
    return np.divide(above, below, out=np.ones_like(above), where=below > 0)


def largest(levels: StepAlphas) -> Float[np.ndarray, " N"]:
    """sigma_max = min(1, (1 - alpha_s) / alpha_t): above it more would be remasked than are masked at s."""
    return np.minimum(1, over(1 - levels.next_alpha, levels.alpha))


def remdm(levels: StepAlphas, sigma: Float[np.ndarray, " N"]) -> Rates:
    """ReMDM's posterior for `sigma` inside the window, 0 outside (arXiv 2503.00307)."""
    sigma = np.where(levels.window, np.minimum(sigma, largest(levels)), 0)
    stay = (1 - levels.next_alpha - sigma * levels.alpha) / (1 - levels.alpha)
    return Rates(np.clip(stay, 0, 1), sigma)


def none(levels: StepAlphas) -> Rates:
    """MDLM: what is known stays known."""
    return remdm(levels, np.zeros_like(levels.alpha))


def cap(eta: float) -> Rule:
    """sigma = min(eta, sigma_max); on the plateau of a loop schedule this is ReMDM-loop."""
    return lambda levels: remdm(levels, np.full_like(levels.alpha, eta))


def rescale(eta: float) -> Rule:
    """sigma = eta sigma_max."""
    return lambda levels: remdm(levels, eta * largest(levels))


def shared(levels: StepAlphas) -> Rates:
    """sigma_max in all, for a policy that deals it out among the known positions; masks are revealed as by MDLM."""
    return Rates(none(levels).keep_mask_prob, np.where(levels.window, largest(levels), 0))


def star(levels: StepAlphas) -> Rates:
    """sigma = 1 - alpha_s: every position is masked anew with the level of s, whatever it was (G-Star, section 2.2)."""
    return remdm(levels, 1 - levels.next_alpha)


def forward_backward(levels: StepAlphas) -> Rates:
    """sigma = (alpha_s - alpha_t) / alpha_t: a step forward in noise after each step back (arXiv 2205.14987)."""
    return remdm(levels, over(levels.next_alpha - levels.alpha, levels.alpha))


def discrete_flow(levels: StepAlphas) -> Rates:
    """The corrector of discrete flow matching (arXiv 2407.15595), as ReMDM's code has it, in terms of alpha.

    With t = 1 - alpha, A = 10 t^(1/4) (1 - t)^(1/4) + 1 and B = A - 1 a mask is revealed with probability A h / t and a
    known position remasked with B h / (1 - t), where h = alpha_s - alpha_t, but at most what keeps both rates' sum at
    1. The first step is MDLM's.
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
