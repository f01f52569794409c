"""Parameters as the named tensors of a checkpoint of PyTorch, the inverse of `diffusion.convert.template`."""

import jax
import numpy as np

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
LOOPS = ("transformer_blocks",)


def named_tensors(params, loops=LOOPS):
    """Return tensors with the names and the layout of diffusers, by name; blocks of a loop are tensors of their own."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["params"]):
        *modules, last = (each.key for each in path)
        loop = next((module for module in modules if module in loops), None)
        for index, value in enumerate(np.asarray(leaf) if loop else [np.asarray(leaf)]):
            parts = []
            for module in modules:
                stem, _, number = module.rpartition("_")
                numbered = stem and number.isdigit() and stem != "linear"
                parts.append(f"{module}.{index}" if module == loop else f"{stem}.{number}" if numbered else module)
            if last == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            tensors[".".join([*parts, LEAVES.get(last, last)])] = np.array(value, order="C")
    return tensors


def tensors_by(name_of, tree):
    """Return the tensors of a checkpoint by the names of `name_of`, the inverse of `template.fill`."""
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        keys = tuple(each.key for each in path)
        for number, value in enumerate(np.asarray(leaf) if "{}" in name_of(keys) else [np.asarray(leaf)]):
            if keys[-1] == "kernel":
                value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            tensors[name_of(keys).format(number)] = np.array(value, order="C")
    return tensors


def relative(result, expected):
    """Return the largest difference, in units of the largest expected value."""
    expected = np.asarray(expected)
    assert np.shape(result) == expected.shape
    return np.abs(np.asarray(result) - expected).max() / np.abs(expected).max()
