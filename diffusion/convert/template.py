"""Named tensors of a public checkpoint as a parameter tree, driven by the tree: each leaf says which tensors it is.

Modules have the names of the checkpoint with "_" for a dot before a number, and layers that run in a loop have no
number: "down_blocks.0.resnets.1.conv1.weight" is down_blocks_0/resnets_1/conv1/kernel, and the leaf
layers/mlp/fc1/kernel of a loop over layers holds "layers.0.mlp.fc1.weight", "layers.1.mlp.fc1.weight", ...
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffusion.types import Params

# The name of a leaf's tensor, by the keys on the way to the leaf; "{}" stands for the number of a layer of a loop.
NameOf = Callable[[tuple[str, ...]], str]
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
NUMBERED = re.compile(r"(?<!^linear)_(\d+)$")


def dotted(keys: tuple[str, ...], loops: tuple[str, ...] = ()) -> str:
    """Return the name by the rule above; `loops` are the modules that hold the layers of a loop."""
    *modules, leaf = keys
    names = [f"{module}.{{}}" if module in loops else NUMBERED.sub(r".\1", module) for module in modules]
    return ".".join([*names, LEAVES.get(leaf, leaf)])


def core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a kernel without the axes of a 1 x 1 window."""
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def fill(template: Params, tensors: Mapping[str, np.ndarray], name_of: NameOf, source: str) -> Params:
    """Return the parameters of a network, each tensor in the type that it is stored in.

    `template` has the shapes of the parameters (`jax.eval_shape`). Kernels are transposed: [out, in] to [in, out], and
    [out, in, height, width] to [height, width, in, out]; a 1 x 1 convolution and a linear map may stand for each other.
    `source` names the file in errors.

    Raises:
      ValueError: naming the first tensor that is missing, has another shape, or is not used.
    """
    unused = set(tensors)

    def take(name: str, kernel: bool, shape: tuple[int, ...]) -> np.ndarray:
        if name not in tensors:
            raise ValueError(f"weights: '{source}' has no tensor '{name}'; is it this kind of model?")
        unused.discard(name)
        value = np.asarray(tensors[name])
        found = value.shape
        if kernel:
            value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        if core(value.shape) != core(shape):
            raise ValueError(
                f"weights: '{name}' of '{source}' has shape {found}, the network's {shape}; is it this size of model?"
            )
        return value.reshape(shape)

    def leaf(path: Any, like: Any) -> np.ndarray:
        keys = tuple(each.key for each in path)
        name, kernel = name_of(keys), keys[-1] == "kernel"
        if "{}" not in name:
            return take(name, kernel, like.shape)
        return np.stack([take(name.format(number), kernel, like.shape[1:]) for number in range(like.shape[0])])

    params = jax.tree_util.tree_map_with_path(leaf, template)
    if unused:
        first = sorted(unused)[0]
        raise ValueError(
            f"weights: '{source}' has {len(unused)} tensors that the network does not use, such as '{first}'; is it "
            "this kind of model?"
        )
    return params


def named(params: Params, name_of: NameOf) -> dict[str, np.ndarray]:
    """Return the tensors that `fill` makes these parameters of, by name and in the layout of PyTorch.

    A linear map that stood for a 1 x 1 convolution, or the reverse, has the shape of the parameter.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        keys = tuple(each.key for each in path)
        name, layers = name_of(keys), np.asarray(value)
        looped = "{}" in name
        for number, each in enumerate(layers if looped else [layers]):
            if keys[-1] == "kernel":
                each = each.transpose(3, 2, 0, 1) if each.ndim == 4 else each.T
            tensors[name.format(number) if looped else name] = each
    return tensors
