"""Sampling half-known tokens (MDM-Prime): proposals on digits, one coin a token, the rate corrector of its images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import fold, uniform
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Grid
from diffusion.sampling.masked.policies import Extra, StepInputs
from diffusion.sampling.masked.sampler import Samples
from diffusion.schedules.masking import rate
from diffusion.types import Keys, Logits, Params, Proposal, Schedule, Symbols


@dataclass(frozen=True)
class DigitDraw:
    """Propose digits: those of one token drawn at every position, or every digit by itself from its marginal.

    The first keeps the dependence between digits that one step reveals, and with the filter gives valid codes alone.
    The second takes digit j from the j-th of l independent draws of the token, which is a draw from its marginal.
    """

    process: PartialMaskedDiffusion
    draw: Draw
    independent: bool = False

    def __call__(
        self, keys: Keys, logits: Logits, noisy: Symbols, temperature: Float[Array, ""], nucleus: Float[Array, ""]
    ) -> Proposal:
        codec = self.process.codec
        filtered = self.process.filtered(logits, noisy)
        draws = [
            codec.encode(self.draw.tokens(fold(keys, place), filtered, temperature, nucleus)[0])
            for place in range(codec.digits if self.independent else 1)
        ]
        digits = jnp.stack([draw[..., place] for place, draw in enumerate(draws)], axis=-1) if draws[1:] else draws[0]
        state = digits.reshape(noisy.shape)
        return Proposal(state, self.process.log_prob(logits, noisy, state), jnp.zeros(noisy.shape))

    def best(self, logits: Logits, noisy: Symbols) -> Symbols:
        """The digits of the most probable token of every position."""
        return self.process.encode(jnp.argmax(self.process.filtered(logits, noisy), axis=-1))


def ancestral_digits(digits: int, chunk_point: float) -> Callable:
    """`ancestral_step` on digits; for t > `chunk_point` the digits of a token are revealed and remasked together."""

    def select(keys: Keys, inputs: StepInputs, row: Grid, extra: Extra) -> tuple[Bool[Array, "B N"], Extra]:
        positions = inputs.masked.shape[1]
        noise = uniform(keys, (positions,))
        if chunk_point < 1:
            shared = jnp.repeat(uniform(fold(keys, "tokens"), (positions // digits,)), digits, axis=1)
            noise = jnp.where((row.time > chunk_point) | (chunk_point == 0), shared, noise)
        return jnp.where(inputs.masked, noise < row.keep_mask_prob, noise < row.remask_prob), extra

    return select


def rate_corrector(schedule: Schedule, times: Float[np.ndarray, " N"], scale: float, power: float, mask_id: int):
    """The image sampler's corrector: after each step a jump of a continuous-time chain with the data's marginals.

    With tau = 1 - t and kappa = scale tau^power (1 - tau)^power, a position moves to its step's proposal at the rate
    (1 + kappa) alpha' / (1 - alpha) and to the mask at kappa alpha' / alpha, and jumps with probability
    1 - exp(-h sum of rates) (MDM-Prime, image code; both exponents are its second parameter). Left out of the first
    step, where the rate is 0 / 0, and of the last. `times` are the N + 1 ends of the steps.

    Raises:
      ValueError: for a negative scale or power.
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
    prompt: Int[Array | np.ndarray, "B L"] | Int[Array | np.ndarray, "B L l"],
    cond: Any = None,
    **options,
) -> Samples:
    """Run a sampler of digits on a prompt of tokens (C: free), or of digits (the mask: free), and decode.

    Codes of no token read as C and are counted, an example's number in `Samples.invalid`.
    """
    codec = process.codec
    if prompt.ndim == 2:
        free = prompt == codec.vocabulary
        prompt = jnp.where(free[..., None], codec.mask_id, codec.encode(prompt))
    samples = sample(params, keys, prompt.reshape(len(prompt), -1), cond=cond, **options)
    tokens = process.decode(samples.tokens)
    return samples._replace(tokens=tokens, invalid=jnp.sum(tokens == codec.vocabulary, axis=1))
