"""Sampling of embedding diffusion: K calls of the network from noise to tokens, which remembers its last estimate.

A prediction, paths and a guide for the one Gaussian sampler: DDIM and ancestral steps, clamping and other guides are
its own. The carry is the memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.codecs.embedding import Embedding
from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.guides import clamp
from diffusion.sampling.gaussian.sampler import Guide, Predict, guided, sample_gaussian
from diffusion.sampling.gaussian.solvers import GaussianGrid, Solver, Table, TimeGrid, at_indices, check_steps, uniform
from diffusion.schedules.gaussian import Betas, GaussianSchedule
from diffusion.types import Denoiser, Keys, Number, Params, SequenceCondition, Tokens

# What a network reads as its last estimate. "reuse": that of the step before, as in all public code. "recompute": one
# made from the same state without a memory, so that there are two calls a step: as in training, and what FastDiSS is
# taken to call correct self-conditioning (inferred). "none": nothing.
MODES = ("reuse", "recompute", "none")


class Memory(NamedTuple):
    """What the next step reads, and what this one has read."""

    ahead: Float[Array, "B L d"]
    read: Float[Array, "B L d"]


class Diagnosis(NamedTuple):
    """What is written down of every step."""

    tokens: Tokens  # of the clean estimate, rounded
    confidence: Float[Array, " B"]  # mean largest probability over the target's real positions
    error: Float[Array, " B"]  # ||memory that was read - clean estimate||^2 / d, a mean over real positions


class Translations(NamedTuple):
    """Tokens [B, L], and every step's diagnosis where it was asked for."""

    tokens: Tokens
    steps: Diagnosis | None


@dataclass(frozen=True)
class EmbeddingSampler:
    """`(params, keys, condition, grid, scale) -> Translations`; example i depends on keys[i] and its condition alone.

    The last step of a path ends on the clean estimate (alpha 1, sigma 0), which is then rounded. `clamping` puts every
    estimate on the nearest embedding, before `guides`. `scale` is the deviation of the noise at the start, the factor
    of decoding; ancestral noise takes it through `noisier`. Positions that are no target's hold token `pad_id`.

    Raises:
      ValueError: for an unknown mode.
    """

    denoiser: Denoiser
    codec: Embedding
    pad_id: int
    mode: str = "reuse"
    clamping: bool = False
    guides: tuple[Guide, ...] = ()
    diagnose: bool = False

    def __post_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"sample.memory: unknown {self.mode!r}; known: {', '.join(MODES)}")

    def __call__(
        self,
        params: Params,
        keys: Keys,
        condition: SequenceCondition,
        grid: GaussianGrid,
        scale: Number = 1.0,
    ) -> Translations:
        size, length = condition.target.shape
        width = self.codec.table(params).shape[-1]
        nearest = (clamp(lambda clean: self.codec.clamp(params, clean)),) if self.clamping else ()
        predict = remembering(self.denoiser, params, condition, self.mode)
        predict = guided(predict, (*nearest, *self.guides, remember))
        nothing = jnp.zeros((size, length, width))
        summary = diagnosis(self.codec, params, condition) if self.diagnose else None
        clean, steps = sample_gaussian(
            predict, keys, (length, width), grid, Memory(nothing, nothing), summary=summary, scale=scale
        )
        tokens = self.codec.decode(params, clean)
        return Translations(jnp.where(condition.target, tokens, self.pad_id), steps)


def remembering(denoiser: Denoiser, params: Params, condition: SequenceCondition, mode: str) -> Predict:
    """The clean estimate of a network that reads a memory; the carry says which one it read."""

    def predict(x: Data, row: GaussianGrid, carry: Memory) -> tuple[Data, Memory]:
        time = jnp.full(len(x), row.time)
        read = jnp.zeros_like(x) if mode == "none" else carry.ahead
        if mode == "recompute":
            read = denoiser(params, x, time, condition, None)
        return denoiser(params, x, time, condition, read), Memory(carry.ahead, read)

    return predict


def remember(predict: Predict) -> Predict:
    """The guide that comes last: what the others have made of the estimate is what the next step reads."""

    def remembered(x: Data, row: GaussianGrid, carry: Memory) -> tuple[Data, Memory]:
        clean, carry = predict(x, row, carry)
        return clean, Memory(clean, carry.read)

    return remembered


def diagnosis(codec: Embedding, params: Params, condition: SequenceCondition) -> Callable[..., Diagnosis]:
    """The summary of a step; what tokens changed follows from the tokens (`changed`)."""
    mask = condition.target
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)

    def summary(x: Data, clean: Data, carry: Memory, row: GaussianGrid) -> Diagnosis:
        del x, row
        logits = codec.logits(params, clean)
        top = jnp.exp(jnp.max(logits, axis=-1) - jax.nn.logsumexp(logits, axis=-1))
        error = jnp.mean((carry.read - clean) ** 2, axis=-1)
        means = (jnp.sum(value * mask, axis=1) / count for value in (top, error))
        return Diagnosis(jnp.argmax(logits, axis=-1).astype(jnp.int32), *means)

    return summary


def changed(steps: Diagnosis, condition: SequenceCondition) -> Float[np.ndarray, " K"]:
    """The share of real positions whose token is another one than at the step before, of all steps but the first."""
    tokens, mask = np.asarray(steps.tokens), np.asarray(condition.target)
    return ((tokens[1:] != tokens[:-1]) & mask[None]).sum((1, 2)) / max(mask.sum(), 1)


def to_the_end(path: TimeGrid) -> TimeGrid:
    """The same path, whose last point is the clean data."""
    alpha, sigma = path.alpha.copy(), path.sigma.copy()
    alpha[-1], sigma[-1] = 1.0, 0.0
    return TimeGrid(path.time, alpha, sigma)


def even(schedule: GaussianSchedule, steps: int) -> TimeGrid:
    """t_k = 1 - k / K (inferred: the grid is not known), and the clean data at the end."""
    return to_the_end(uniform(schedule, steps))


def spaced(schedule: Betas, steps: int) -> TimeGrid:
    """Indices round(j (n - 1) / (K - 1)) of a chain of n, falling: Difformer's grid. One step begins at the last."""
    check_steps(steps, schedule.steps)
    indices = np.linspace(0, schedule.steps - 1, steps).round()[::-1] if steps > 1 else np.array([schedule.steps - 1])
    return at_indices(schedule, indices, (1.0, 0.0))


def cedi(schedule: GaussianSchedule, steps: int) -> TimeGrid:
    """DINOISER's: noise from time 1 to 1e-3, while the network is told times from 1 to 0.99, so that it heeds the
    source."""
    path = uniform(schedule, steps, 1.0, 1e-3)
    return to_the_end(path._replace(time=np.linspace(1.0, 0.99, steps + 1)))


PATHS = {"even": even, "spaced": spaced, "cedi": cedi}


def noisier(solver: Solver, factor: float) -> Solver:
    """A solver whose noise is `factor` times as large: ancestral steps of a process with that factor."""

    def table(path: TimeGrid) -> Table:
        made = solver(path)
        return made._replace(noise=factor * made.noise)

    return table
