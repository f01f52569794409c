"""The one Gaussian sampler: predict the clean data, guide, step; in one scan, under any solver."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.processes.gaussian import Data, GaussianDiffusion
from diffusion.rng import fold, normal
from diffusion.sampling.gaussian.solvers import GaussianGrid
from diffusion.types import Denoiser, Keys, Number, Params

# What a prediction reads besides the state, and may change: the condition (DATE moves it), a memory.
Carry = Any


@runtime_checkable
class Predict(Protocol):
    """The clean estimate at a state; a guide is a function from one of these to another."""

    def __call__(self, x: Data, row: GaussianGrid, carry: Carry) -> tuple[Data, Carry]: ...


Guide = Callable[[Predict], Predict]


@runtime_checkable
class Resample(Protocol):
    """What happens to particles after a step: `init(size)`, and a call that may replace some by copies of others."""

    def init(self, size: int) -> Any: ...

    def __call__(
        self, keys: Keys, x: Data, clean: Data, carry: Carry, weights: Any, row: GaussianGrid
    ) -> tuple[Data, Data, Carry, Any]: ...


class GaussianState(NamedTuple):
    """What the scan carries."""

    x: Data
    clean: Data
    carry: Carry
    weights: Any


def guided(predict: Predict, guides: tuple[Guide, ...]) -> Predict:
    """A prediction under guides, the first one applied first."""
    for guide in guides:
        predict = guide(predict)
    return predict


def network(denoiser: Denoiser, process: GaussianDiffusion, params: Params) -> Predict:
    """The clean estimate of a network that is told the carry as its condition."""

    def predict(x: Data, row: GaussianGrid, carry: Carry) -> tuple[Data, Carry]:
        prediction = denoiser(params, x, jnp.full(len(x), row.time), carry)
        return process.clean(prediction, x, row.alpha, row.sigma), carry

    return predict


def sample_gaussian(
    predict: Predict,
    keys: Keys,
    shape: tuple[int, ...],
    grid: GaussianGrid,
    carry: Carry = None,
    resample: Resample | None = None,
    summary: Callable[[Data, Data, Carry, GaussianGrid], Any] | None = None,
    scale: Number = 1.0,
) -> tuple[Data, Any]:
    """From N(0, scale^2) noise of `shape` an example to the last state, and each step's summary.

    `summary(x, clean, carry, row)` sees the state before the step, the estimate at it, and the carry that it left.

    Example i depends on keys[i] alone, unless particles are resampled.
    """

    def step(walk: GaussianState, row: GaussianGrid) -> tuple[GaussianState, Any]:
        # However a prediction was made, what follows is compiled alike.
        clean, carry = jax.lax.optimization_barrier(predict(walk.x, row, walk.carry))
        noise = normal(fold(fold(keys, "step"), row.index), shape)
        x = row.state * walk.x + row.clean * clean + row.slope * (clean - walk.clean) + row.noise * noise
        seen = summary(walk.x, clean, carry, row) if summary else None
        weights = walk.weights
        if resample is not None:
            x, clean, carry, weights = resample(fold(keys, row.index), x, clean, carry, weights, row)
        return GaussianState(x, clean, carry, weights), seen

    x = scale * normal(fold(keys, "start"), shape)
    weights = resample.init(len(keys)) if resample is not None else None
    walk, seen = jax.lax.scan(step, GaussianState(x, jnp.zeros_like(x), carry, weights), grid)
    return walk.x, seen


def rows_of(tree: Any, indices: Int[Array | np.ndarray, " N"]) -> Any:
    """The chosen examples of every array of a tree."""
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def flat(x: Data) -> Float[Array, "B D"]:
    """Every example as one vector."""
    return x.reshape(len(x), -1)
