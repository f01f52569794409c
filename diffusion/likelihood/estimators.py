"""Likelihood estimators of discrete data: draws of bounds on -log p(x), and exact values, in nats per sequence."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.likelihood.any_order import nll_any_order
from diffusion.objectives.autoregressive import next_token_log_probs
from diffusion.objectives.elbo import masked_nll
from diffusion.objectives.reveal import draw_levels, final_level, mean_over_hidden, reveal_bound
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws
from diffusion.schedules.masking import inverse
from diffusion.types import Denoise, LossMask, MaskedProcess, Tokens

Nats = Float[Array, " B"]
# (denoise, process, tokens, weights, draws) -> nats. The process is masked here, and Gaussian in `PixelBound`.
Estimate = Callable[[Callable[..., Any], Any, Tokens, LossMask, Draws], Nats]


def bound_continuous(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """Draw an unbiased estimate of the continuous-time NELBO (MDLM, arXiv 2406.07524), in nats per sequence.

    The NELBO is int_0^1 E[sum_{i in S} -log p(x^i | z_l)] dl / l with the level l = (1 - alpha(t)) / (1 - alpha(1)) and
    the masked set S of z_l. Generation starts from masks only at t = 1, so that the forward process is the schedule
    conditioned on that end, and the prior term is exactly 0. If alpha(0) < 1, the integral continues below the level of
    t = 0 with the network's time fixed at 0: this part is the reconstruction term. Positions of weight 0 (padding) are
    masked like the others, as in training, and are revealed at no cost.

    The published protocol of MDLM averages over t in [1e-3, 1], without the two ends; the difference is at most about
    0.1 %.
    """
    return reveal_bound(denoise, independent_subtokens(process), tokens, weights, draws)


# The name of this bound for sub-tokens (MDM-Prime), by their marginals -log p(sub-token | y_t): in continuous time they
# are revealed one at a time, so that only marginals enter the likelihood.
bound_marginal = bound_continuous


def bound_grouped(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """Draw the bound with all sub-tokens of a token masked together, -log p(token | y_t), in nats per sequence.

    This is the bound of MDLM for a network that reads sub-tokens. It is valid whatever noise the network was trained
    on.
    """
    if isinstance(process, PartialMaskedDiffusion):
        process = replace(process, chunk_point=0.0)
    noise, level = draw_levels(process, tokens, draws)
    time = inverse(process.schedule, 1 - level * final_level(process.schedule))
    hidden = noise <= level[:, None]
    masked = jnp.any(hidden.reshape(*tokens.shape, process.subtokens), axis=-1)
    return mean_over_hidden(denoise, process, tokens, weights * masked, hidden, time, target="joint")


def joint_ce(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """Draw the loss of the MDM-Prime paper, the mean over states of -log p(token | y_t), in nats: NOT a likelihood.

    Under the exact posterior it is the entropy minus the total correlation of the tokens' masked sub-tokens, so that
    its exponential is not a perplexity; the authors have withdrawn the tables that report it. With one sub-token per
    token it is the bound of MDLM.
    """
    return reveal_bound(denoise, independent_subtokens(process), tokens, weights, draws, target="joint")


def independent_subtokens(process: MaskedProcess) -> MaskedProcess:
    """The process that masks sub-tokens independently at all times, for which likelihoods are defined."""
    return replace(process, chunk_point=1.0) if isinstance(process, PartialMaskedDiffusion) else process


@dataclass(frozen=True)
class BoundSteps:
    """Draw the bound of the ancestral sampler with `steps` equal steps from t = 1 to t = 0, in nats per sequence.

    Step k reveals each masked position independently with probability rho_k = (alpha_{k-1} - alpha_k) / (1 - alpha_k),
    and the last step reveals all. The bound is sum_k rho_k E[sum_{i masked in z_k} -log p(x^i | z_k)] (MDLM in discrete
    time, arXiv 2406.07524). The draw samples a step with the probability that a position is revealed in it. With one
    step this is -log p(x | masks) exactly; with many it converges to the continuous bound.

    For sub-tokens it is the bound of the whole-token sampler, sum_k E[sum_i -log p(y^{i,R_k} | y_k)]: the sub-tokens
    R^i of token i that a step reveals come from one draw, so that their joint mass counts. The draw samples a step as
    above, and a set R_k with probability proportional to its size, for which the weight N / |R_k| corrects.
    """

    steps: int

    def __call__(
        self, denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws
    ) -> Nats:
        process = independent_subtokens(process)
        noise, level = draw_levels(process, tokens, draws)
        times = np.arange(1, self.steps + 1) / self.steps
        levels = np.asarray((1 - process.schedule.alpha(times)) / final_level(process.schedule), np.float32)
        step = jnp.searchsorted(jnp.asarray(levels), level, side="right")
        time = jnp.asarray(times, jnp.float32)[step]
        hidden = noise < jnp.asarray(levels)[step][:, None]
        if process.subtokens == 1:
            return mean_over_hidden(denoise, process, tokens, weights, hidden, time)
        before = jnp.asarray(np.concatenate([[0], levels[:-1]]), jnp.float32)[step]
        revealed = hidden & (noise >= before[:, None])
        clean = process.encode(tokens)
        noisy = jnp.where(hidden, process.mask_id, clean)
        log_prob = process.token_log_prob(denoise(noisy, time), noisy, clean, revealed)
        return revealed.shape[1] / jnp.sum(revealed, axis=1) * jnp.sum(-log_prob * weights, axis=1)


def nll_autoregressive(
    denoise: Denoise,
    process: MaskedProcess,
    tokens: Tokens,
    weights: LossMask,
    draws: Draws,
    given_first: bool = False,
) -> Nats:
    """Compute -sum_i log p(x^i | x^{<i}) of a causal network with the mask as start symbol, in nats per sequence.

    The value is exact. With `given_first` the first token is the start, and is not scored. A network of sub-tokens
    reads one per position, and the likelihood of a token is the product over its sub-tokens. The likelihoods of all
    sequences of tokens sum to 1 if sub-tokens that lead to no token have no mass (`restrict` in
    codecs/subtoken_prefixes.py), and to less without this filter.
    """
    del draws
    return jnp.sum(-next_token_log_probs(denoise, process, tokens, given_first) * weights, axis=1)


def masked_ce(denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws) -> Nats:
    """Draw the cross-entropy of masked positions without the weight of the bound, in nats: NOT a likelihood.

    This is the loss of BERT, and a negative control: every test that a bound passes must fail for it.
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
# Estimators that call the network on clean prefixes instead of masked states.
CAUSAL = frozenset({"nll_autoregressive"})


def estimator(name: str) -> Estimate:
    """Look up an estimator of masked diffusion; "bound_steps_32" is `BoundSteps(32)`.

    Raises:
      ValueError: for an unknown name; the message lists the known ones.
    """
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    if match := re.fullmatch(r"bound_steps_([1-9]\d*)", name):
        return BoundSteps(int(match[1]))
    known = sorted([*ESTIMATORS, "bound_steps_N (N = 1, 2, ...)"])
    passes = "followed by _passes_K with self-conditioning"
    raise ValueError(
        f"evaluate.estimator: unknown name {name!r} for process.name=masked; known: {', '.join([*known, passes])}"
    )


def split_passes(name: str) -> tuple[str, int]:
    """Split "bound_continuous_passes_2" into ("bound_continuous", 2); the number of passes is 1 by default.

    A network with K passes at the same noisy state (see `self_conditioned`) is a denoiser of that state alone, so that
    its bound is valid. It is the bound of a sampler with K evaluations per step (SCMDM, arXiv 2604.26985).
    """
    match = re.fullmatch(r"(.+)_passes_([1-9]\d*)", name)
    return (match[1], int(match[2])) if match else (name, 1)
