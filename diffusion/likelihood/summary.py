"""From nats per sequence to the numbers of a table; only an estimator that is a likelihood gets a perplexity."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int, Integer, Key

from diffusion.likelihood.estimators import Estimate
from diffusion.metrics.statistics import ratio
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import Draws, draws, fold
from diffusion.types import Batch, Denoiser, MaskedProcess, Params, Symbols, Times

LIKELIHOODS = ("bound_", "nll_")
Evaluator = Callable[
    [Params, Batch, Key[Array, ""], int | Int[Array, ""]], tuple[Float[Array, " B"], Float[Array, " B"]]
]


class Scores(NamedTuple):
    """Host arrays in float64, one entry a sequence."""

    nats: Float[np.ndarray, " N"]
    tokens: Float[np.ndarray, " N"]


def make_evaluator(
    estimate: Estimate, denoiser: Denoiser, process: MaskedProcess | GaussianDiffusion, draws_per_example: int = 1
) -> Evaluator:
    """Compile (params, batch, key, step) -> (nats [B], tokens [B]), the mean of several draws for each sequence.

    The draws of an example are spread evenly over the unit interval from a random start, which costs nothing and
    removes most of their variance; dropout is off.

    Raises:
      ValueError: for a number of draws below 1.
    """
    if draws_per_example < 1:
        raise ValueError(f"evaluate.draws: must be at least 1, not {draws_per_example}")

    @jax.jit
    def evaluate(params: Params, batch: Mapping[str, Array], key: Key[Array, ""], step: int | Int[Array, ""]):
        tokens, weights = batch["tokens"], batch["weights"]
        root = draws(key, "evaluate", step, len(tokens))

        def denoise(noisy: Symbols | Float[Array, "B ..."], time: Times) -> Any:
            return denoiser(params, noisy, time, batch.get("prompt", batch.get("label")))

        def one(index: Int[Array, ""]) -> Float[Array, " B"]:
            shifted = jax.numpy.mod(root.uniform + index / draws_per_example, 1.0)
            return estimate(denoise, process, tokens, weights, Draws(fold(root.keys, index), shifted))

        nats = jax.lax.map(one, jax.numpy.arange(draws_per_example))
        return nats.mean(axis=0), weights.sum(axis=1)

    return evaluate


def evaluate_likelihood(evaluator: Evaluator, params: Params, batches: Iterable[Batch], key: Key[Array, ""]) -> Scores:
    """Score every batch; sequences without a scored token (fill of the last batch) are left out.

    Raises:
      ValueError: when no sequence is left.
    """
    # Kept on the device until the end, so that the host never waits between batches.
    results = [evaluator(params, batch, key, step) for step, batch in enumerate(batches)]
    rows = [tuple(_to_host(array) for array in result) for result in results]
    nats, tokens = (np.concatenate(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 2
    if not np.any(tokens > 0):
        raise ValueError("evaluate.data: no sequence to score; check data.path and evaluate.examples")
    return Scores(nats[tokens > 0], tokens[tokens > 0])


def is_likelihood(name: str) -> bool:
    """Whether an estimator of this name may be turned into bits or a perplexity."""
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
    """Nats per token, bits per token, character and byte, and perplexity; every key starts with the estimator's name.

    Means are pooled (total nats over total tokens); `_sem` is the standard error of that ratio over sequences, which
    includes the estimator's own noise. `perplexity=False` gives the nats alone.

    Raises:
      ValueError: when a perplexity is asked for a name that does not start with "bound_" or "nll_".
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
    """Float64 on the host, also when other processes hold parts of the array."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array, np.float64)
