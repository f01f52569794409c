"""The continuous-time negative ELBO of masked diffusion, and the two losses of MDM-Prime."""

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.objectives.loss import Loss, bind_batch, summed
from diffusion.partition import batch_shards
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.readout import Readout, RowLogits, Rows, evaluated, read
from diffusion.rng import Draws
from diffusion.schedules.masking import rate
from diffusion.types import Batch, Denoise, Denoiser, Logits, LossMask, MaskedProcess, Params, Symbols, Times, Tokens

# The likelihood in the loss: of every masked sub-token by its marginal (a bound), or of every token jointly (the
# loss of MDM-Prime, not a bound). For whole tokens the two are equal.
Target = Literal["marginal", "joint"]


def sample_times(uniform: Float[Array, " B"], minimum: float) -> Times:
    """Map uniform numbers to times in [minimum, 1), away from the pole of the weight at t = 0."""
    return minimum + (1 - minimum) * uniform


def masked_nll(
    process: MaskedProcess,
    logits: Logits,
    noisy: Symbols,
    clean: Symbols,
    weights: LossMask,
    target: Target = "marginal",
    together: Bool[Array, " B"] | None = None,
) -> Float[Array, " B"]:
    """Compute -log p of the masked positions of a state, in nats per sequence.

    "marginal" is the sum over masked sub-tokens of -log p(sub-token | state), whose weighted mean over time is a bound.
    "joint" is the sum over tokens of -log p(token | state), the loss of MDM-Prime: it lacks the total correlation of a
    token's masked sub-tokens and can be lower than the entropy. In examples whose sub-tokens are masked together
    (`together`), "marginal" uses -log p(token | state) as well, which is a bound for them.
    """
    hidden = noisy == process.mask_id
    if target == "joint" and process.subtokens > 1:
        return jnp.sum(-process.token_log_prob(logits, noisy, clean) * weights, axis=1)
    marginal = -process.log_prob(logits, noisy, clean) * hidden * jnp.repeat(weights, process.subtokens, axis=1)
    marginal = jnp.sum(marginal, axis=1)
    if together is None:
        return marginal
    masked_tokens = jnp.any(hidden.reshape(*weights.shape, process.subtokens), axis=-1)
    joint = jnp.sum(-process.token_log_prob(logits, noisy, clean) * weights * masked_tokens, axis=1)
    return jnp.where(together, joint, marginal)


def masked_token_nats(
    process: MaskedProcess,
    evaluation: Readout,
    noisy: Symbols,
    clean: Symbols,
    weights: LossMask,
    share: float,
    target: Target = "marginal",
    together: Bool[Array, " B"] | None = None,
) -> Float[Array, "B L"]:
    """Compute `masked_nll` by token, in nats, from logits at the tokens that have a mask and a weight.

    They are computed at once if they fit into `share` of all tokens, as they nearly always do for a share of
    `row_share`; the others are computed apart.
    """
    # Without the filter of MDM-Prime the joint likelihood of a token without masks is not 1.
    unfiltered = target == "joint" and isinstance(process, PartialMaskedDiffusion) and not process.carry_over
    needed = jnp.any(evaluation.by_token(noisy == process.mask_id), axis=-1) | unfiltered

    def nats(logits: RowLogits, rows: Rows) -> Float[Array, " R"]:
        before, after = rows.take(evaluation.by_token(noisy)), rows.take(evaluation.by_token(clean))
        grouped = None if together is None else rows.of_examples(together)
        return masked_nll(process, logits, before, after, rows.take(jnp.asarray(weights))[:, None], target, grouped)

    return read(evaluation, needed & (weights != 0), nats, share)


def row_share(shape: tuple[int, ...], mean: float, exact: bool = False) -> float:
    """Return a share of the tokens of a batch of this `shape` (B, L) into which those with a mask nearly always fit.

    `mean` is their mean share over time. Times are stratified over the batch, so that the number of masks varies by
    about half an example, and by less than three standard deviations of independent masks unless it is a function of
    the time (`exact`).
    """
    shards = batch_shards(shape[0])
    examples, length = shape[0] // shards, shape[1]
    size = examples * length
    # Parts of a batch on several devices are stratified less evenly.
    strata = max(examples, length) * (0.5 if shards == 1 else 1.5)
    spread = examples / 2 if exact else 1.5 * math.sqrt(size)
    return min(1.0, mean + (strata + spread) / size)


def weighted_cross_entropy(
    process: MaskedProcess,
    denoise: Denoise,
    tokens: Tokens,
    weights: LossMask,
    time: Times,
    draws: Draws,
    target: Target = "marginal",
) -> Float[Array, " B"]:
    """Draw -alpha'(t) / (1 - alpha(t)) sum_{masked i} -log p(x^i | z_t), in nats per sequence.

    Its mean over t ~ U(0, 1) and z_t is the NELBO (MDLM, arXiv 2406.07524); for sub-tokens it is the marginal bound or
    the joint cross-entropy of MDM-Prime. Unmasked positions contribute exactly 0.
    """
    noisy, together = process.corrupt(draws.keys, tokens, time), masked_together(process, time, target)
    evaluation, clean = evaluated(denoise, noisy, time), process.encode(tokens)
    masked = process.schedule.masked((np.arange(1000) + 0.5) / 1000)
    share = row_share(tokens.shape, float(np.mean(1 - (1 - masked) ** process.subtokens)))
    nats = masked_token_nats(process, evaluation, noisy, clean, weights, share, target, together)
    return rate(process.schedule, time) * jnp.sum(nats, axis=1)


def masked_together(process: MaskedProcess, time: Times, target: Target) -> Bool[Array, " B"] | None:
    """Return whether each example's sub-tokens are masked together, so that marginals are not a bound; None: never."""
    if isinstance(process, PartialMaskedDiffusion) and process.chunk_point < 1 and target == "marginal":
        return process.masks_together(time)
    return None


@dataclass(frozen=True)
class Nelbo:
    """The loss of MDLM: the NELBO's integrand at one stratified time per example, in nats per token."""

    denoiser: Denoiser
    process: MaskedProcess
    minimum_time: float = 1e-3
    target: Target = "marginal"

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights, time = batch["tokens"], batch["weights"], sample_times(draws.uniform, self.minimum_time)
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        nats = weighted_cross_entropy(self.process, denoise, tokens, weights, time, draws, self.target)
        return summed(nats, weights)
