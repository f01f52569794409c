"""Configs at debug scale, and programs whose results are the golden numbers."""

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

LETTERS = string.digits + string.ascii_letters


def computed(function: Callable, *inputs: Any) -> Any:
    """Return `function(*inputs)` by one program, whose inputs may have been used before."""
    return jax.jit(function).lower(*inputs).compile()(*inputs)


def debug(table: ModuleType, overrides: dict, row: str = "") -> ConfigDict:
    """Return the config of a row of a table at debug scale with overrides; without a row that of the table."""
    config = table.get_config("debug")
    rows = {each["name"]: each["overrides"] for each in table.rows(config)} | {"": {}}
    return resolve(config, rows[row] | overrides, 0)


def sensitive_params(init: Callable, scale: float = 0.3, seed: int = 0) -> Any:
    """Return random weights with small biases, with which outputs depend on inputs."""

    def shrunk(path, leaf):
        return leaf * 0.1 if "bias" in jax.tree_util.keystr(path) else leaf

    return jax.tree_util.tree_map_with_path(shrunk, randomized(init, scale, seed))


def keys(size: int) -> jax.Array:
    """Return one key per example."""
    return example_keys(jax.random.key(0), jnp.arange(size))


def letters(tokens: Any) -> list[str]:
    """Return the tokens of each example as a string, with one character per token."""
    return ["".join(LETTERS[token] for token in row) for row in np.asarray(tokens)]


def summary(x: Any) -> dict[str, float]:
    """Return mean and norm of an array."""
    x = np.asarray(x, np.float64)
    return {"mean": float(x.mean()), "norm": float(np.sqrt((x**2).sum()))}
