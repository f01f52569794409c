"""The continuous-time negative ELBO of masked diffusion, MDLM's training loss, and Prime's two versions of it."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws, fold
from diffusion.schedules.masking import rate
from diffusion.types import (
    Batch,
    Denoise,
    Denoiser,
    Logits,
    LossMask,
    MaskedProcess,
    Metrics,
    Params,
    Symbols,
    Times,
    Tokens,
)

# What is predicted: every masked digit by its marginal (a bound), or every token at once (MDM-Prime's loss, which is
# not). With whole tokens for positions the two are one.
Target = Literal["marginal", "joint"]


def sample_times(uniform: Float[Array, " B"], minimum: float) -> Times:
    """Map uniforms to times in [minimum, 1), away from the pole of the weight at t = 0."""
    return minimum + (1 - minimum) * uniform


def cross_entropy(
    process: MaskedProcess,
    logits: Logits,
    noisy: Symbols,
    clean: Symbols,
    weights: LossMask,
    target: Target = "marginal",
    grouped: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """-log p of what the noisy state hides, in nats a sequence; `weights` count tokens.

    "marginal": sum over masked digits of -log p(digit | state), whose weighted mean over time is a bound. "joint": sum
    over tokens of -log p(token | state), MDM-Prime's loss; it leaves out the total correlation of a token's masked
    digits and falls below the entropy. Where the digits of a token are masked together (`grouped`), -log p(token) is
    what is revealed, and a bound too.
    """
    hidden = noisy == process.mask_id
    if target == "joint" and process.subtokens > 1:
        return jnp.sum(-process.token_log_prob(logits, noisy, clean) * weights, axis=1)
    marginal = -process.log_prob(logits, noisy, clean) * hidden * jnp.repeat(weights, process.subtokens, axis=1)
    marginal = jnp.sum(marginal, axis=1)
    if grouped is None:
        return marginal
    part = jnp.any(hidden.reshape(*weights.shape, process.subtokens), axis=-1)
    whole = jnp.sum(-process.token_log_prob(logits, noisy, clean) * weights * part, axis=1)
    return jnp.where(grouped, whole, marginal)


def weighted_cross_entropy(
    process: MaskedProcess,
    denoise: Denoise,
    tokens: Tokens,
    weights: LossMask,
    time: Times,
    draws: Draws,
    target: Target = "marginal",
) -> Float[Array, " B"]:
    """One draw of -alpha'(t)/(1 - alpha(t)) sum_{masked i} -log p(x^i | z_t), in nats a sequence.

    Its mean over t ~ U(0, 1) and z_t is the NELBO (MDLM; arXiv 2406.07524), on digits Prime's bound or its joint
    cross-entropy. Carry-over is exact: positions that are not masked contribute nothing.
    """
    noisy = process.corrupt(draws.keys, tokens, time)
    logits = denoise(noisy, time)
    nats = cross_entropy(
        process, logits, noisy, process.encode(tokens), weights, target, shared_coins(process, time, target)
    )
    return rate(process.schedule, time) * nats


def shared_coins(process: MaskedProcess, time: Times, target: Target) -> Bool[Array, " B"] | None:
    """Where a token's digits are masked together and the marginals are not what is revealed; None: nowhere."""
    if isinstance(process, PartialMaskedDiffusion) and process.chunk_point < 1 and target == "marginal":
        return process.masks_together(time)
    return None


@dataclass(frozen=True)
class Nelbo:
    """Mean over tokens of the NELBO integrand at one stratified time an example, in nats per token."""

    denoiser: Denoiser
    process: MaskedProcess
    minimum_time: float = 1e-3
    target: Target = "marginal"

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        time = sample_times(draws.uniform, self.minimum_time)
        keys = fold(draws.keys, "dropout") if train else None

        def denoise(noisy: Symbols, time: Times) -> Logits:
            return self.denoiser(params, noisy, time, batch.get("label"), keys=keys)

        nats = weighted_cross_entropy(
            self.process, denoise, batch["tokens"], batch["weights"], time, draws, self.target
        )
        total, tokens = jnp.sum(nats), jnp.sum(batch["weights"])
        return total, {"loss": (total, tokens)}
