"""Likelihood estimators: one unbiased draw of a bound on -log p(x), in nats a sequence."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.corrupt.masking import Masking
from diffusion.objectives.autoregressive import shift_right
from diffusion.objectives.reveal import final_level, mean_over_hidden, reveal_bound, revealed
from diffusion.randomness import Draws
from diffusion.types import Denoise, Tokens

Weights = Float[Array, "B L"]
Nats = Float[Array, "B"]
Estimate = Callable[[Denoise, Masking, Tokens, Weights, Draws], Nats]


def bound_continuous(denoise: Denoise, process: Masking, tokens: Tokens, weights: Weights, draws: Draws) -> Nats:
    """One draw of the NELBO of the continuous-time process, int_0^1 E[sum_{i in S} -log p(x^i | z_l)] dl / l, in nats.

    The level is l = (1 - alpha(t)) / (1 - alpha(1)): generation starts from masks alone at t = 1, so the forward
    process is the schedule conditioned to end there and the prior term is exactly 0. Where alpha(0) < 1 the process
    goes on below the level of t = 0, one position after another with the network's time held at 0: this is the
    reconstruction term, part of the same integral. Nothing is cut off: the draw is unbiased for every schedule.
    Positions of weight 0 (padding) are masked like the others, as in training, and given freely when revealed.

    MDLM's published protocol averages over t in [1e-3, 1] instead, without the two ends: at most about 0.1 % apart.
    """
    return reveal_bound(denoise, process, tokens, weights, draws)


@dataclass(frozen=True)
class BoundSteps:
    """One draw of the bound of the ancestral sampler with `steps` equal steps from t = 1 to t = 0, in nats.

    Step k reveals each masked position with probability rho_k = (alpha_{k-1} - alpha_k) / (1 - alpha_k), the last step
    all of them, independently given the state: sum_k rho_k E[sum_{i masked in z_k} -log p(x^i | z_k)] (MDLM,
    arXiv 2406.07524, discrete time). The draw picks a step with the probability that a position is revealed in it.
    One step gives -log p(x | masks) exactly; many steps fall to the continuous bound.
    """

    steps: int

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"evaluate.steps: must be at least 1, not {self.steps}")

    def __call__(self, denoise: Denoise, process: Masking, tokens: Tokens, weights: Weights, draws: Draws) -> Nats:
        noise, level = revealed(tokens, draws)
        times = np.arange(1, self.steps + 1) / self.steps
        levels = (1 - process.schedule.alpha(times)) / final_level(process.schedule)
        step = jnp.searchsorted(jnp.asarray(levels, jnp.float32), level, side="right")
        ceiling = jnp.asarray(levels, jnp.float32)[step]
        hidden = noise < ceiling[:, None]
        return mean_over_hidden(denoise, process, tokens, weights, hidden, jnp.asarray(times, jnp.float32)[step])


def nll_autoregressive(denoise: Denoise, process: Masking, tokens: Tokens, weights: Weights, draws: Draws) -> Nats:
    """-sum_i log p(x^i | x^{<i}) of a causal network that reads the mask symbol first: exact, in nats."""
    del draws
    logits = denoise(shift_right(tokens, process.mask_id), jnp.zeros(len(tokens)))
    return jnp.sum(-target_log_probs(logits, tokens, process.mask_id) * weights, axis=1)


def masked_ce(denoise: Denoise, process: Masking, tokens: Tokens, weights: Weights, draws: Draws) -> Nats:
    """Cross-entropy of masked positions without the weight of the bound: NOT a likelihood, a negative control.

    Every test that a bound passes must fail for this number; it is what BERT's loss would report.
    """
    noisy = process.corrupt(draws.keys, tokens, draws.uniform)
    log_prob = target_log_probs(denoise(noisy, draws.uniform), tokens, process.mask_id)
    return jnp.sum(-log_prob * (noisy == process.mask_id) * weights, axis=1)


ESTIMATORS: dict[str, Estimate] = {
    "bound_continuous": bound_continuous,
    "nll_autoregressive": nll_autoregressive,
    "masked_ce": masked_ce,
}
# Estimators that call the network on clean prefixes, not on masked states.
CAUSAL = frozenset({"nll_autoregressive"})


def estimator(name: str) -> Estimate:
    """Look an estimator up; "bound_steps_32" is the bound of 32 steps.

    Raises:
      ValueError: for an unknown name, with the known ones.
    """
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    if match := re.fullmatch(r"bound_steps_([1-9]\d*)", name):
        return BoundSteps(int(match[1]))
    known = ", ".join(sorted([*ESTIMATORS, "bound_steps_N (N = 1, 2, ...)"]))
    raise ValueError(f"evaluate.estimator: unknown name {name!r}; known: {known}")
