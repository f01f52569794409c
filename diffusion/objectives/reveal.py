"""A lower-variance draw of the NELBO, at the state from which a random position is revealed.

Every position i becomes masked at a level u_i ~ U(0, 1); the state at level l masks {i : u_i < l}. Choose a position I
uniformly, and let S be the masked set of the state from which I is revealed. Given S, I is equally likely to be any of
its members, hence

    sum_i -log p(x^i | state from which i is revealed) = E[ L / |S| sum_{i in S} -log p(x^i | z_S) ],

with a weight L / |S| in [1, L]. The weight of the usual draw, -alpha'(t) / (1 - alpha(t)), has a pole at t = 0 that has
to be cut off, and a variance that grows as its logarithm. The expectation is the same (MDLM, arXiv 2406.07524; for
networks without time conditioning RADD, arXiv 2406.03736).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.objectives.elbo import Target, masked_together, masked_token_nats, row_share
from diffusion.objectives.loss import Loss, bind_batch, summed
from diffusion.readout import evaluated
from diffusion.rng import Draws
from diffusion.schedules.masking import inverse
from diffusion.types import Batch, Denoise, Denoiser, LossMask, MaskedProcess, Params, Schedule, Times, Tokens


def draw_levels(process: MaskedProcess, tokens: Tokens, draws: Draws) -> tuple[Float[Array, "B N"], Float[Array, " B"]]:
    """Draw the level of every position, and select that of a random position by a stratified rank."""
    noise = process.noise(draws.keys, tokens.shape[1], draws.uniform)
    positions = noise.shape[1]
    rank = jnp.minimum((draws.uniform * positions).astype(jnp.int32), positions - 1)
    return noise, jnp.take_along_axis(jnp.sort(noise, axis=1), rank[:, None], axis=1)[:, 0]


def final_level(schedule: Schedule) -> float:
    """Compute the mask level 1 - alpha(1), in float64."""
    return float(schedule.masked(np.ones(())))


def mean_over_hidden(
    denoise: Denoise,
    process: MaskedProcess,
    tokens: Tokens,
    weights: LossMask,
    hidden: Bool[Array, "B N"],
    time: Times,
    target: Target = "marginal",
    together: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute N / |S| sum_{i in S} -log p(x^i | z_S) over N positions with the hidden set S, in nats per sequence."""
    clean = process.encode(tokens)
    noisy = jnp.where(hidden, process.mask_id, clean)
    # Of n sub-tokens, all masked at a uniform level, none is masked with probability 1 / (n + 1).
    mean = process.subtokens / (process.subtokens + 1)
    share = row_share(tokens.shape, mean, exact=process.subtokens == 1)
    evaluation = evaluated(denoise, noisy, time)
    nats = masked_token_nats(process, evaluation, noisy, clean, weights, share, target, together)
    return hidden.shape[1] / jnp.sum(hidden, axis=1) * jnp.sum(nats, axis=1)


def reveal_bound(
    denoise: Denoise,
    process: MaskedProcess,
    tokens: Tokens,
    weights: LossMask,
    draws: Draws,
    target: Target = "marginal",
) -> Float[Array, " B"]:
    """Draw an unbiased estimate of the NELBO, in nats per sequence; the network's time is that of the state's level."""
    noise, level = draw_levels(process, tokens, draws)
    time = inverse(process.schedule, 1 - level * final_level(process.schedule))
    together = masked_together(process, draws.uniform, target)
    return mean_over_hidden(denoise, process, tokens, weights, noise <= level[:, None], time, target, together)


@dataclass(frozen=True)
class RevealNelbo:
    """The loss `reveal_bound`: the expectation of `Nelbo` with less gradient noise, in nats per token."""

    denoiser: Denoiser
    process: MaskedProcess
    target: Target = "marginal"

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        nats = reveal_bound(denoise, self.process, batch["tokens"], batch["weights"], draws, self.target)
        return summed(nats, batch["weights"])
