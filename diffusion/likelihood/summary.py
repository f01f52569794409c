"""Evaluation of likelihood estimators over data sets, and their summary as nats, bits and perplexity per token."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int, Integer, Key

from diffusion.likelihood.estimators import Estimate
from diffusion.metrics.statistics import ratio
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.readout import BoundDenoiser
from diffusion.rng import Draws, draws, fold
from diffusion.types import Batch, Denoiser, MaskedProcess, Params, Process

LIKELIHOODS = ("bound_", "nll_")
Evaluator = Callable[
    [Params, Batch, Key[Array, ""], int | Int[Array, ""]], tuple[Float[Array, " B"], Float[Array, " B"]]
]


class Scores(NamedTuple):
    """Nats and number of scored tokens of each sequence, as float64 host arrays."""

    nats: Float[np.ndarray, " N"]
    tokens: Float[np.ndarray, " N"]


def make_evaluator(
    estimate: Estimate,
    denoiser: Denoiser,
    process: Process | MaskedProcess | GaussianDiffusion,
    draws_per_example: int = 1,
) -> Evaluator:
    """Compile (params, batch, key, step) -> (nats [B], scored tokens [B]), with nats averaged over several draws.

    The uniform numbers of an example's draws are evenly spaced from a random start, which removes most of the variance
    at no cost. Dropout is off.

    Raises:
      ValueError: for fewer than one draw per example.
    """
    if draws_per_example < 1:
        raise ValueError(f"evaluate.draws: must be at least 1, not {draws_per_example}")

    @jax.jit
    def evaluate(params: Params, batch: Mapping[str, Array], key: Key[Array, ""], step: int | Int[Array, ""]):
        tokens, weights = batch["tokens"], batch["weights"]
        root = draws(key, "evaluate", step, len(tokens))

        denoise = BoundDenoiser(denoiser, params, batch.get("prompt", batch.get("label")))

        def one(index: Int[Array, ""]) -> Float[Array, " B"]:
            shifted = jax.numpy.mod(root.uniform + index / draws_per_example, 1.0)
            return estimate(denoise, process, tokens, weights, Draws(fold(root.keys, index), shifted))

        nats = jax.lax.map(one, jax.numpy.arange(draws_per_example))
        return nats.mean(axis=0), weights.sum(axis=1)

    return evaluate


def evaluate_likelihood(evaluator: Evaluator, params: Params, batches: Iterable[Batch], key: Key[Array, ""]) -> Scores:
    """Evaluate all batches; sequences without scored tokens, such as those that fill the last batch, are dropped.

    Raises:
      ValueError: if no sequence has scored tokens.
    """
    # Results stay on the device until the end, so that the host does not wait between batches.
    results = [evaluator(params, batch, key, step) for step, batch in enumerate(batches)]
    rows = [tuple(_to_host(array) for array in result) for result in results]
    nats, tokens = (np.concatenate(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 2
    if not np.any(tokens > 0):
        raise ValueError("evaluate.data: no sequence to score; check data.path and evaluate.examples")
    return Scores(nats[tokens > 0], tokens[tokens > 0])


def is_likelihood(name: str) -> bool:
    """Return whether an estimator of this name is a likelihood, so that it has bits and a perplexity."""
    return name.startswith(LIKELIHOODS)


def summarize(
    name: str,
    nats: Float[np.ndarray, " N"],
    tokens: Float[np.ndarray, " N"] | Integer[np.ndarray, " N"],
    characters: float | None = None,
    bytes: float | None = None,
    *,
    perplexity: bool = True,
) -> dict[str, float]:
    """Compute nats per token, bits per token, character and byte, and perplexity, with keys "name/...".

    Means are pooled (total nats over total tokens); `_sem` is the standard error of that ratio over sequences, which
    includes the noise of the estimator. With `perplexity=False` only nats are computed.

    Raises:
      ValueError: for a perplexity of an estimator whose name does not start with "bound_" or "nll_".
    """
    if perplexity and not is_likelihood(name):
        raise ValueError(
            f"evaluate.estimator: {name!r} is not a likelihood, so it has no perplexity or bits; "
            "use one whose name starts with bound_ or nll_"
        )
    nats, tokens = np.asarray(nats, np.float64), np.asarray(tokens, np.float64)
    mean, error = ratio(nats, tokens)
    per_token = {"nats_per_token": mean, "nats_per_token_sem": error}
    counts = {"sequences": len(nats), "tokens": int(tokens.sum())}
    if perplexity:
        for unit, count in (("token", tokens.sum()), ("character", characters), ("byte", bytes)):
            if count:
                scale = tokens.sum() / count / np.log(2)
                per_token |= {f"bits_per_{unit}": mean * scale, f"bits_per_{unit}_sem": error * scale}
        level = float(np.exp(mean))
        per_token |= {"perplexity": level, "perplexity_sem": level * error}
    return {f"{name}/{key}": value for key, value in (per_token | counts).items()}


def _to_host(array: Array) -> Float[np.ndarray, "..."]:
    """Copy an array to the host as float64, also if other processes hold parts of it."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array, np.float64)
