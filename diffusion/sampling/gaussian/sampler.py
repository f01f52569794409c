"""The sampler of Gaussian diffusion: each step predicts the clean data, applies guides, and takes a solver step."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffusion.processes.gaussian import Data, GaussianDiffusion
from diffusion.rng import fold, normal
from diffusion.sampling.gaussian.solvers import GaussianGrid
from diffusion.sampling.gaussian.steering import Steering
from diffusion.types import Denoiser, Keys, Number, Params

# Inputs of a prediction besides the state, which it may change: the conditioning, or a self-conditioning input.
Carry = Any

# A function from a state to its clean estimate and the new carry; a guide maps one such function to another.
Predict = Callable[[Data, GaussianGrid, Carry], tuple[Data, Carry]]
Guide = Callable[[Predict], Predict]


class GaussianState(NamedTuple):
    """Carry of the scan."""

    x: Data
    clean: Data
    carry: Carry
    weights: Any


def guide(rule: Callable[[Predict, Data, GaussianGrid, Carry], tuple[Data, Carry]]) -> Guide:
    """Return the guide whose predictions are `rule(predict, x, row, carry)`."""
    return lambda predict: partial(rule, predict)


def guided(predict: Predict, guides: tuple[Guide, ...]) -> Predict:
    """Apply guides to a prediction, in order."""
    for guide in guides:
        predict = guide(predict)
    return predict


def network(denoiser: Denoiser, process: GaussianDiffusion, params: Params) -> Predict:
    """Return the prediction of a network whose conditioning is the carry."""

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
    resample: Steering | None = None,
    summary: Callable[[Data, Data, Carry, GaussianGrid], Any] | None = None,
    scale: Number = 1.0,
) -> tuple[Data, Any]:
    """Sample from N(0, scale^2) noise, and return the last state and the summaries of all steps.

    `shape` is that of one example. `summary(x, clean, carry, row)` reads the state before the step, the clean estimate
    at that state, and the carry after it. Example i depends on keys[i] only, unless particles are resampled.
    """

    def step(state: GaussianState, row: GaussianGrid) -> tuple[GaussianState, Any]:
        # The barrier makes the compiled step independent of the prediction.
        clean, carry = jax.lax.optimization_barrier(predict(state.x, row, state.carry))
        noise = normal(fold(fold(keys, "step"), row.index), shape)
        x = row.state * state.x + row.clean * clean + row.slope * (clean - state.clean) + row.noise * noise
        output = summary(state.x, clean, carry, row) if summary else None
        weights = state.weights
        if resample is not None:
            x, clean, carry, weights = resample(fold(keys, row.index), x, clean, carry, weights, row)
        return GaussianState(x, clean, carry, weights), output

    x = scale * normal(fold(keys, "start"), shape)
    weights = resample.init(len(keys)) if resample is not None else None
    state, outputs = jax.lax.scan(step, GaussianState(x, jnp.zeros_like(x), carry, weights), grid)
    return state.x, outputs


def take_rows(tree: Any, indices: Int[Array | np.ndarray, " N"]) -> Any:
    """Index every array of a tree along its first axis."""
    return jax.tree.map(lambda leaf: leaf[indices], tree)


def flat(x: Data) -> Float[Array, "B D"]:
    """Flatten every example to a vector."""
    return x.reshape(len(x), -1)
