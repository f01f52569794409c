"""What the golden numbers are numbers of: configs at debug scale, and programs that are compiled in the least time."""

import string
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion.rng import example_keys
from experiments.plan import resolve
from tests.weights import randomized

# Half of the time is XLA's optimization, and without it numbers agree to 3e-7 with those of the usual program.
FAST = {"xla_backend_optimization_level": 0}
LETTERS = string.digits + string.ascii_letters


def unoptimized(function: Callable, *inputs: Any) -> Any:
    """`function(*inputs)`, compiled in the least time."""
    return jax.jit(function).lower(*inputs).compile(compiler_options=FAST)(*inputs)


def debug(table: ModuleType, overrides: dict, row: str = "") -> ConfigDict:
    """The config of a row of a table at debug scale with overrides on top; without a row the table's own."""
    config = table.get_config("debug")
    rows = {each["name"]: each["overrides"] for each in table.rows(config)} | {"": {}}
    return resolve(config, rows[row] | overrides, 0)


def telling(init: Callable, scale: float = 0.3, seed: int = 0) -> Any:
    """Random weights with small biases, under which what comes out depends on what goes in."""

    def shrunk(path, leaf):
        return leaf * 0.1 if "bias" in jax.tree_util.keystr(path) else leaf

    return jax.tree_util.tree_map_with_path(shrunk, randomized(init, scale, seed))


def keys(size: int) -> jax.Array:
    """A key for each example."""
    return example_keys(jax.random.key(0), jnp.arange(size))


def letters(tokens: Any) -> list[str]:
    """The tokens of every example as a string, a character each."""
    return ["".join(LETTERS[token] for token in row) for row in np.asarray(tokens)]


def summary(x: Any) -> dict[str, float]:
    """Mean and norm of an array."""
    x = np.asarray(x, np.float64)
    return {"mean": float(x.mean()), "norm": float(np.sqrt((x**2).sum()))}
