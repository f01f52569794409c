"""The NELBO drawn at a state from which one position is revealed: no pole, and a third of the variance.

All bounds share one view of masking. Every position i is masked at a level u_i ~ U(0, 1); the state at level l hides
{i : u_i < l}. Pick one position I uniformly and look at the state from which I is revealed, with hidden set S: given
S, I is any of its members with equal probability, hence

    sum_i -log p(x^i | state from which i is revealed) = E[ L / |S| sum_{i in S} -log p(x^i | z_S) ],

whose weight L / |S| lies in [1, L]. The textbook draw has weight -alpha'(t) / (1 - alpha(t)) instead, with a pole at
t = 0 that must be cut off and a variance that grows as its logarithm; the expectation is the same
(MDLM, arXiv 2406.07524; for a network without time: RADD, arXiv 2406.03736).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.objectives.elbo import Target, cross_entropy, shared_coins
from diffusion.rng import Draws, fold
from diffusion.schedules.masking import inverse
from diffusion.types import (
    Batch,
    Denoise,
    Denoiser,
    Logits,
    LossMask,
    MaskedProcess,
    Metrics,
    Params,
    Schedule,
    Symbols,
    Times,
    Tokens,
)


def revealed(process: MaskedProcess, tokens: Tokens, draws: Draws) -> tuple[Float[Array, "B N"], Float[Array, " B"]]:
    """Every position's level, and that of one position picked uniformly: the order statistic of a stratified rank."""
    noise = process.noise(draws.keys, tokens.shape[1], draws.uniform)
    positions = noise.shape[1]
    rank = jnp.minimum((draws.uniform * positions).astype(jnp.int32), positions - 1)
    return noise, jnp.take_along_axis(jnp.sort(noise, axis=1), rank[:, None], axis=1)[:, 0]


def final_level(schedule: Schedule) -> float:
    """1 - alpha(1), in float64."""
    return float(schedule.masked(np.ones(())))


def mean_over_hidden(
    denoise: Denoise,
    process: MaskedProcess,
    tokens: Tokens,
    weights: LossMask,
    hidden: Bool[Array, "B N"],
    time: Times,
    target: Target = "marginal",
    grouped: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """N / |S| sum_{i in S} -log p(x^i | z_S), in nats a sequence, over N positions (tokens, or their digits)."""
    clean = process.encode(tokens)
    noisy = jnp.where(hidden, process.mask_id, clean)
    nats = cross_entropy(process, denoise(noisy, time), noisy, clean, weights, target, grouped)
    return hidden.shape[1] / jnp.sum(hidden, axis=1) * nats


def reveal_bound(
    denoise: Denoise,
    process: MaskedProcess,
    tokens: Tokens,
    weights: LossMask,
    draws: Draws,
    target: Target = "marginal",
) -> Float[Array, " B"]:
    """One unbiased draw of the NELBO, in nats a sequence; the network is told the time of the state's level."""
    noise, level = revealed(process, tokens, draws)
    time = inverse(process.schedule, 1 - level * final_level(process.schedule))
    grouped = shared_coins(process, draws.uniform, target)
    return mean_over_hidden(denoise, process, tokens, weights, noise <= level[:, None], time, target, grouped)


@dataclass(frozen=True)
class RevealNelbo:
    """Training on `reveal_bound`: MDLM's objective with less noise in its gradient, in nats per token."""

    denoiser: Denoiser
    process: MaskedProcess
    target: Target = "marginal"

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        keys = fold(draws.keys, "dropout") if train else None

        def denoise(noisy: Symbols, time: Times) -> Logits:
            return self.denoiser(params, noisy, time, batch.get("label"), keys=keys)

        nats = reveal_bound(denoise, self.process, batch["tokens"], batch["weights"], draws, self.target)
        total = jnp.sum(nats)
        return total, {"loss": (total, jnp.sum(batch["weights"]))}
