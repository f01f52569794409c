"""Sampling of partially masked tokens (MDM-Prime): proposals, reveals per token, and the corrector for images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import fold, uniform
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Grid
from diffusion.sampling.masked.sampler import Samples
from diffusion.schedules.masking import rate
from diffusion.types import Keys, Logits, Params, Proposal, Schedule, Symbols


@dataclass(frozen=True)
class SubtokenDraw:
    """A draw of sub-tokens: those of one token per position, or each sub-token from its own marginal.

    A draw of whole tokens keeps the dependence between the sub-tokens of a token, and with the filter of the process
    its codes are those of tokens. With `independent`, sub-token j is that of the j-th of l independent draws of the
    token, which is a draw from its marginal; the codes then may be those of no token.
    """

    process: PartialMaskedDiffusion
    draw: Draw
    independent: bool = False

    def __call__(
        self, keys: Keys, logits: Logits, noisy: Symbols, temperature: Float[Array, ""], nucleus: Float[Array, ""]
    ) -> Proposal:
        """Propose sub-tokens [B, L l], with log p of each in nats given the sub-tokens known in `noisy`."""
        codec = self.process.codec
        filtered = self.process.filtered(logits, noisy)
        draws = [
            codec.encode(self.draw.tokens(fold(keys, place), filtered, temperature, nucleus)[0])
            for place in range(codec.digits if self.independent else 1)
        ]
        codes = jnp.stack([draw[..., place] for place, draw in enumerate(draws)], axis=-1) if draws[1:] else draws[0]
        state = codes.reshape(noisy.shape)
        return Proposal(state, self.process.log_prob(logits, noisy, state), jnp.zeros(noisy.shape))

    def best(self, logits: Logits, noisy: Symbols) -> Symbols:
        """Return the sub-tokens of the most probable token of every position."""
        return self.process.encode(jnp.argmax(self.process.filtered(logits, noisy), axis=-1))


def rate_corrector(schedule: Schedule, times: Float[np.ndarray, " N"], scale: float, power: float, mask_id: int):
    """Return MDM-Prime's corrector for images: after each step, one jump of a chain that keeps the marginals.

    With tau = 1 - t and kappa = scale tau^power (1 - tau)^power, a position moves to the proposal of the step with rate
    (1 + kappa) alpha' / (1 - alpha) and to the mask with rate kappa alpha' / alpha. In a step of width h it jumps with
    probability 1 - exp(-h (sum of rates)) (MDM-Prime, code for images, with one parameter for both exponents). The
    first step, where the rate is 0 / 0, and the last have no jump. `times` are the N + 1 ends of the steps.

    Raises:
      ValueError: if the scale or the power is negative.
    """
    if scale < 0 or power < 0:
        raise ValueError(f"sample.corrector: scale and power must not be negative, not ({scale}, {power})")
    start, width = times[:-1], times[:-1] - times[1:]
    kappa = scale * (1 - start) ** power * start**power
    reveal = np.asarray(rate(schedule, jnp.asarray(start, jnp.float32)), np.float64)
    masked = np.asarray(schedule.masked(start), np.float64)
    alive = np.maximum(1 - masked, 1e-12)
    skip = (np.arange(len(start)) == 0) | (np.arange(len(start)) == len(start) - 1)
    to_proposal = jnp.asarray(np.where(skip, 0, width * (1 + kappa) * reveal), jnp.float32)
    to_mask = jnp.asarray(np.where(skip, 0, width * kappa * reveal * masked / alive), jnp.float32)

    def correct(keys: Keys, state: Symbols, proposal: Symbols, row: Grid) -> Symbols:
        forward = jnp.where(state == proposal, 0, to_proposal[row.index])
        backward = jnp.where(state == mask_id, 0, to_mask[row.index])
        total = forward + backward
        jump, side = (uniform(fold(keys, name), state.shape[1:]) for name in ("jump", "side"))
        target = jnp.where(side * total < forward, proposal, mask_id)
        return jnp.where(jump < -jnp.expm1(-total), target, state)

    return correct


def sample_tokens(
    sample: Callable[..., Samples],
    process: PartialMaskedDiffusion,
    params: Params,
    keys: Keys,
    prompt: Int[Array | np.ndarray, "B L"],
    cond: Any = None,
    **options,
) -> Samples:
    """Run a sampler of sub-tokens and decode its samples.

    `prompt` has tokens, with the vocabulary size at free positions. A code without a token decodes to the vocabulary
    size; `Samples.invalid` has the number of them per example.
    """
    codec = process.codec
    state = jnp.where((prompt == codec.vocabulary)[..., None], codec.mask_id, codec.encode(prompt))
    samples = sample(params, keys, state.reshape(len(prompt), -1), cond=cond, **options)
    tokens = process.decode(samples.tokens)
    return samples._replace(tokens=tokens, invalid=jnp.sum(tokens == codec.vocabulary, axis=1))
