"""Likelihood estimators: one unbiased draw of a bound on -log p(x), in nats a sequence."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.likelihood.any_order import nll_any_order
from diffusion.objectives.autoregressive import shift_right
from diffusion.objectives.elbo import masked_nll
from diffusion.objectives.reveal import draw_levels, final_level, mean_over_hidden, reveal_bound
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws
from diffusion.schedules.masking import inverse
from diffusion.types import Denoise, MaskedProcess, Tokens

LossMask = Float[Array, "B L"]
Nats = Float[Array, " B"]
# Denoiser and process are of the estimator's kind: of this module's they mask, `LevelBound`'s have Gaussian noise.
Estimate = Callable[[Callable[..., Any], Any, Tokens, LossMask, Draws], Nats]


def bound_continuous(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """One draw of the NELBO of the continuous-time process, int_0^1 E[sum_{i in S} -log p(x^i | z_l)] dl / l, in nats.

    The level is l = (1 - alpha(t)) / (1 - alpha(1)): generation starts from masks alone at t = 1, so the forward
    process is the schedule conditioned to end there and the prior term is exactly 0. Where alpha(0) < 1 the process
    goes on below the level of t = 0, one position after another with the network's time held at 0: this is the
    reconstruction term, part of the same integral. Nothing is cut off: the draw is unbiased for every schedule.
    Positions of weight 0 (padding) are masked like the others, as in training, and given freely when revealed.

    MDLM's published protocol averages over t in [1e-3, 1] instead, without the two ends: at most about 0.1 % apart.
    """
    return reveal_bound(denoise, every_digit(process), tokens, weights, draws)


def bound_marginal(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """One draw of Prime's valid bound, the same integral over digits: sum of -log p(digit | y_t), marginals, in nats.

    In continuous time one digit is revealed at a time, so only single digits' marginals enter the likelihood. It is
    `bound_continuous` by another name: with one digit a token, MDLM's bound.
    """
    return bound_continuous(denoise, process, tokens, weights, draws)


def bound_grouped(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """One draw of the bound with all digits of a token masked together: -log p(token | y_t), in nats.

    MDLM's bound for a network that reads digits: a valid number for any of them, whatever noise it was trained on.
    """
    if isinstance(process, PartialMaskedDiffusion):
        process = replace(process, chunk_point=0.0)
    noise, level = draw_levels(process, tokens, draws)
    time = inverse(process.schedule, 1 - level * final_level(process.schedule))
    hidden = noise <= level[:, None]
    masked = jnp.any(hidden.reshape(*tokens.shape, process.subtokens), axis=-1)
    return mean_over_hidden(denoise, process, tokens, weights * masked, hidden, time, target="joint")


def joint_ce(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """One draw of the MDM-Prime paper's loss, the mean over states of -log p(token | y_t), in nats: NOT a likelihood.

    With the true posteriors it is the entropy minus the total correlation of a token's masked digits, so its
    exponential is no perplexity; the authors have withdrawn the tables that print it. One digit: MDLM's bound.
    """
    return reveal_bound(denoise, every_digit(process), tokens, weights, draws, target="joint")


def every_digit(process: MaskedProcess) -> MaskedProcess:
    """The process with one coin a digit at all times, of which likelihoods are defined."""
    return replace(process, chunk_point=1.0) if isinstance(process, PartialMaskedDiffusion) else process


@dataclass(frozen=True)
class BoundSteps:
    """One draw of the bound of the ancestral sampler with `steps` equal steps from t = 1 to t = 0, in nats.

    Step k reveals each masked position with probability rho_k = (alpha_{k-1} - alpha_k) / (1 - alpha_k), the last step
    all of them, independently given the state: sum_k rho_k E[sum_{i masked in z_k} -log p(x^i | z_k)] (MDLM,
    arXiv 2406.07524, discrete time). The draw picks a step with the probability that a position is revealed in it.
    One step gives -log p(x | masks) exactly; many steps fall to the continuous bound.

    On digits it is the bound of the whole-token sampler: the digits R^i of token i that a step reveals come from one
    draw, so their joint mass counts, sum_k E[sum_i -log p(y^{i,R_k} | y_k)]. The draw picks a step as above, and a
    set R_k with a chance in proportion to its size, which the weight N / |R_k| undoes.
    """

    steps: int

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"evaluate.steps: must be at least 1, not {self.steps}")

    def __call__(
        self, denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws
    ) -> Nats:
        process = every_digit(process)
        noise, level = draw_levels(process, tokens, draws)
        times = np.arange(1, self.steps + 1) / self.steps
        levels = np.asarray((1 - process.schedule.alpha(times)) / final_level(process.schedule), np.float32)
        step = jnp.searchsorted(jnp.asarray(levels), level, side="right")
        time = jnp.asarray(times, jnp.float32)[step]
        hidden = noise < jnp.asarray(levels)[step][:, None]
        if process.subtokens == 1:
            return mean_over_hidden(denoise, process, tokens, weights, hidden, time)
        before = jnp.asarray(np.concatenate([[0], levels[:-1]]), jnp.float32)[step]
        now = hidden & (noise >= before[:, None])
        clean = process.encode(tokens)
        noisy = jnp.where(hidden, process.mask_id, clean)
        log_prob = process.token_log_prob(denoise(noisy, time), noisy, clean, now)
        return now.shape[1] / jnp.sum(now, axis=1) * jnp.sum(-log_prob * weights, axis=1)


def nll_autoregressive(
    denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws
) -> Nats:
    """-sum_i log p(x^i | x^{<i}) of a causal network that reads the mask symbol first: exact, in nats."""
    del draws
    logits = denoise(shift_right(tokens, process.mask_id), jnp.zeros(len(tokens)))
    return jnp.sum(-target_log_probs(logits, tokens, process.mask_id) * weights, axis=1)


def masked_ce(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """Cross-entropy of masked positions without the weight of the bound: NOT a likelihood, a negative control.

    Every test that a bound passes must fail for this number; it is what BERT's loss would report.
    """
    noisy = process.corrupt(draws.keys, tokens, draws.uniform)
    return masked_nll(process, denoise(noisy, draws.uniform), noisy, process.encode(tokens), weights)


ESTIMATORS: dict[str, Estimate] = {
    "bound_continuous": bound_continuous,
    "bound_marginal": bound_marginal,
    "bound_grouped": bound_grouped,
    "joint_ce": joint_ce,
    "nll_autoregressive": nll_autoregressive,
    "nll_any_order": nll_any_order,
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
    known = ", ".join([*sorted([*ESTIMATORS, "bound_steps_N (N = 1, 2, ...)"]), "with _passes_K behind it for memory"])
    raise ValueError(f"evaluate.estimator: unknown name {name!r}; known: {known}")


def split_passes(name: str) -> tuple[str, int]:
    """("bound_continuous", 2) for "bound_continuous_passes_2"; one pass where the name does not say.

    The network that reads its own prediction K - 1 times at the same noisy state is a denoiser of that state alone, so
    its bound is valid: it is the likelihood of a sampler that spends K evaluations a step (SCMDM).
    """
    match = re.fullmatch(r"(.+)_passes_([1-9]\d*)", name)
    return (match[1], int(match[2])) if match else (name, 1)
