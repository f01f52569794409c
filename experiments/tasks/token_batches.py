"""Batches of samples of token sequences: one compiled program over all prompts, with what it costs in time."""

import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.tree_util import Partial
from jaxtyping import Int
from tqdm import tqdm

from diffusion.rng import example_keys, named
from diffusion.train.mesh import batch_sharding, replicated
from diffusion.types import Params
from experiments.run_context import Run

COLUMNS = ("evaluations", "idle", "invalid", "predictor_evaluations")  # counts of every sample


def draw_batches(
    run: Run,
    sample: Callable,
    prompt: Int[np.ndarray, "N ..."],
    label: Int[np.ndarray, " N"] | None,
    given: Sequence[tuple] = ((),),
    *,
    purpose: str = "sample",
    size: int = 0,
    params: Params | None = None,
) -> tuple[dict[str, np.ndarray], float]:
    """Draw a sample for every prompt in batches of `size` (0: sample.batch): its columns, and the seconds of one.

    With several entries of `given`, further inputs of the sampler, the samples are as many sets of equal size, and each
    set has its own. Sample i has the key (purpose, i). The parameters are those of the run unless others are given. A
    sampler that is a pytree is an argument of the program, which then serves other samplers of this structure too.
    """
    size, params = size or run.config.sample.batch, run.weights() if params is None else params
    set_size = len(prompt) // len(given)

    def draw(sample, params, root, prompt, indices, label, given):
        return sample(params, example_keys(named(root, purpose), indices), prompt, label, *given)

    def arguments(start: int) -> tuple:
        indices = np.arange(start, start + size)
        filled = np.minimum(indices, len(prompt) - 1)
        classes = None if label is None else put_rows(label[filled], rows)
        return put_rows(prompt[filled], rows), put_rows(indices, rows), classes, inputs[start // set_size]

    rows, whole = batch_sharding(run.mesh), replicated(run.mesh)
    sampler = sample if isinstance(sample, Partial) else Partial(sample)  # a Partial of a Partial has no leaves
    inputs, sampler = jax.device_put((list(given), sampler), whole)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    function = jax.jit(draw, in_shardings=(whole, shardings, whole, rows, rows, rows, whole), out_shardings=rows)
    root, parts = run.root, []
    with jax.set_mesh(run.mesh):
        compiled = function.lower(sampler, params, root, *arguments(0)).compile()
    clock = time.perf_counter()
    ends = [set_size * (index + 1) for index in range(len(given))]
    starts = [(start, min(end - start, size)) for end in ends for start in range(end - set_size, end, size)]
    for start, count in tqdm(starts, desc="sampling", disable=not sys.stderr.isatty(), leave=False):
        drawn = to_host(compiled(sampler, params, root, *arguments(start)))
        parts.append({name: getattr(drawn, name)[:count] for name in ("tokens", *COLUMNS)})
    # Every batch is computed whole, the surplus of the last one too.
    seconds = (time.perf_counter() - clock) / (len(starts) * size)
    return {name: np.concatenate([part[name] for part in parts]) for name in ("tokens", *COLUMNS)}, seconds


def put_rows(array: np.ndarray, sharding) -> jax.Array:
    """The rows of a batch as a global array."""
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def to_host(tree):
    """Numpy arrays, also of what other processes hold."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)
