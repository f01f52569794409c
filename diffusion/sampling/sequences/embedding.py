"""The sampler of embedding diffusion: the Gaussian sampler, with a self-conditioning input as its carry."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.guides import clamp
from diffusion.sampling.gaussian.sampler import Guide, Predict, guide, guided, sample_gaussian
from diffusion.sampling.gaussian.solvers import GaussianGrid, Solver, Table, TimeGrid, at_indices, check_steps, uniform
from diffusion.schedules.gaussian import BetaChain, GaussianSchedule
from diffusion.types import Denoiser, Keys, Number, Params, SequenceCondition, Tokens

# The self-conditioning input of a step. "reuse": the estimate of the previous step, as in all public code. "recompute":
# an estimate at the same state without a self-conditioning input, as in training, at two calls of the network per step
# (we infer that FastDiSS calls this correct self-conditioning). "none": zeros.
MODES = ("reuse", "recompute", "none")


class SelfConditioningInputs(NamedTuple):
    """Self-conditioning inputs of the next and of the current step."""

    next: Float[Array, "B L d"]
    current: Float[Array, "B L d"]


class StepStatistics(NamedTuple):
    """Statistics of every step; means are over the positions of the target."""

    tokens: Tokens  # the rounded clean estimate
    confidence: Float[Array, " B"]  # mean of the largest token probability
    error: Float[Array, " B"]  # mean of ||self-conditioning input - clean estimate||^2 / d


class Translations(NamedTuple):
    """Tokens [B, L], and the statistics of every step if the sampler has `diagnose`."""

    tokens: Tokens
    steps: StepStatistics | None


@dataclass(frozen=True)
class EmbeddingSampler:
    """A sampler of embedding diffusion.

    A time grid ends at alpha = 1 and sigma = 0, so that the last step returns the clean estimate, which is then rounded
    to tokens. `clamping` replaces every estimate with the nearest embeddings, before `guides`. `mode` is one of
    `MODES`. Positions outside of the target hold token `pad_id`.

    Raises:
      ValueError: if the mode is not known.
    """

    denoiser: Denoiser
    codec: EmbeddingCodec
    pad_id: int
    mode: str = "reuse"
    clamping: bool = False
    guides: tuple[Guide, ...] = ()
    diagnose: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"sample.memory: unknown {self.mode!r}; known: {', '.join(MODES)}")

    def __call__(
        self, params: Params, keys: Keys, condition: SequenceCondition, grid: GaussianGrid, scale: Number = 1.0
    ) -> Translations:
        """Sample targets; example i depends on keys[i] and its conditioning only.

        `scale` is the standard deviation of the noise at the start (the factor of decoding); `scale_noise` does the
        same to the noise of ancestral steps.
        """
        size, length = condition.target.shape
        width = self.codec.table(params).shape[-1]
        nearest = (clamp(lambda clean: self.codec.clamp(params, clean)),) if self.clamping else ()
        predict = self_conditioned(self.denoiser, params, condition, self.mode)
        predict = guided(predict, (*nearest, *self.guides, store_estimate))
        zeros = jnp.zeros((size, length, width))
        summary = diagnosis(self.codec, params, condition) if self.diagnose else None
        clean, steps = sample_gaussian(
            predict, keys, (length, width), grid, SelfConditioningInputs(zeros, zeros), summary=summary, scale=scale
        )
        tokens = self.codec.decode(params, clean)
        return Translations(jnp.where(condition.target, tokens, self.pad_id), steps)


def self_conditioned(denoiser: Denoiser, params: Params, condition: SequenceCondition, mode: str) -> Predict:
    """Return the prediction of a network with self-conditioning; the new carry has the input that it read."""

    def predict(x: Data, row: GaussianGrid, carry: SelfConditioningInputs) -> tuple[Data, SelfConditioningInputs]:
        time = jnp.full(len(x), row.time)
        current = jnp.zeros_like(x) if mode == "none" else carry.next
        if mode == "recompute":
            current = denoiser(params, x, time, condition, None)
        return denoiser(params, x, time, condition, current), SelfConditioningInputs(carry.next, current)

    return predict


@guide
def store_estimate(predict: Predict, x: Data, row: GaussianGrid, carry: SelfConditioningInputs):
    """Store the guided estimate as the self-conditioning input of the next step; this must be the last guide."""
    clean, carry = predict(x, row, carry)
    return clean, SelfConditioningInputs(clean, carry.current)


def diagnosis(codec: EmbeddingCodec, params: Params, condition: SequenceCondition) -> Callable[..., StepStatistics]:
    """Return the function that computes the statistics of a step."""
    mask = condition.target
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)

    def summary(_: Data, clean: Data, carry: SelfConditioningInputs, row: GaussianGrid) -> StepStatistics:
        logits = codec.logits(params, clean)
        top = jnp.exp(jnp.max(logits, axis=-1) - jax.nn.logsumexp(logits, axis=-1))
        error = jnp.mean((carry.current - clean) ** 2, axis=-1)
        means = (jnp.sum(value * mask, axis=1) / count for value in (top, error))
        return StepStatistics(jnp.argmax(logits, axis=-1).astype(jnp.int32), *means)

    return summary


def to_the_end(path: TimeGrid) -> TimeGrid:
    """Replace the last point with clean data, alpha = 1 and sigma = 0."""
    alpha, sigma = path.alpha.copy(), path.sigma.copy()
    alpha[-1], sigma[-1] = 1.0, 0.0
    return TimeGrid(path.time, alpha, sigma)


def even(schedule: GaussianSchedule, steps: int) -> TimeGrid:
    """Return the times t_k = 1 - k / K, and clean data at the end; the published grid is not known."""
    return to_the_end(uniform(schedule, steps))


def spaced(schedule: BetaChain, steps: int) -> TimeGrid:
    """Return Difformer's grid, indices round(j (n - 1) / (K - 1)) of a chain of n in decreasing order.

    A single step begins at index n - 1 (arXiv 2212.09412).
    """
    check_steps(steps, schedule.steps)
    indices = np.linspace(0, schedule.steps - 1, steps).round()[::-1] if steps > 1 else np.array([schedule.steps - 1])
    return at_indices(schedule, indices, (1.0, 0.0))


def cedi(schedule: GaussianSchedule, steps: int) -> TimeGrid:
    """Return DINOISER's grid: noise of times from 1 to 1e-3, and network times from 1 to 0.99 (arXiv 2302.10025).

    At times close to 1 the network relies on the source rather than on the noisy target.
    """
    path = uniform(schedule, steps, 1.0, 1e-3)
    return to_the_end(path._replace(time=np.linspace(1.0, 0.99, steps + 1)))


TIME_GRIDS = {"even": even, "spaced": spaced, "cedi": cedi}


def scale_noise(solver: Solver, factor: float) -> Solver:
    """Return a solver with `factor` times the noise, for ancestral steps of a process with that noise factor."""

    def table(path: TimeGrid) -> Table:
        coefficients = solver(path)
        return coefficients._replace(noise=factor * coefficients.noise)

    return table
