"""Named tensors of a public checkpoint as a parameter tree, driven by the tree: each leaf says which tensors it is.

Modules have the names of the checkpoint with "_" for a dot before a number, and layers that run in a loop have no
number: "down_blocks.0.resnets.1.conv1.weight" is down_blocks_0/resnets_1/conv1/kernel, and the leaf
layers/mlp/fc1/kernel of a loop over layers holds "layers.0.mlp.fc1.weight", "layers.1.mlp.fc1.weight", ...
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from diffusion.types import Params

# The name of a leaf's tensor, by the keys on the way to the leaf; "{}" stands for the number of a layer of a loop, and
# several names are those of its layers.
NameOf = Callable[[tuple[str, ...]], str | Sequence[str]]
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
NUMBERED = re.compile(r"(?<!^linear)_(\d+)$")


def dotted(keys: tuple[str, ...], loops: tuple[str, ...] = ()) -> str:
    """Return the name by the rule above; `loops` are the modules that hold the layers of a loop."""
    *modules, leaf = keys
    names = [f"{module}.{{}}" if module in loops else NUMBERED.sub(r".\1", module) for module in modules]
    return ".".join([*names, LEAVES.get(leaf, leaf)])


def core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without leading axes of size 1, such as those of the window of a 1 x 1 convolution."""
    return core(shape[1:]) if len(shape) > 1 and shape[0] == 1 else shape


def layer_names(name: str | Sequence[str], layers: int) -> Sequence[str] | None:
    """Return the names of the tensors of a leaf that holds all layers of a loop; None for a leaf of one tensor."""
    if isinstance(name, str):
        return [name.format(number) for number in range(layers)] if "{}" in name else None
    return name


def shape_of(tensors: Mapping[str, np.ndarray], name: str, source: str, axes: int = 2) -> tuple[int, ...]:
    """Return the shape of a tensor, which says the sizes of a network.

    Raises:
      ValueError: if the tensor is missing, or has another number of axes, or an empty one.
    """
    if name not in tensors:
        raise ValueError(f"checkpoint: '{source}' has no tensor '{name}'; is it this kind of checkpoint?")
    shape = np.shape(tensors[name])
    if len(shape) != axes or 0 in shape:
        raise ValueError(f"checkpoint: '{name}' of '{source}' has shape {shape}; is it this kind of checkpoint?")
    return shape


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
        layers = layer_names(name, like.shape[0] if like.shape else 0)
        if layers is None:
            return take(str(name), kernel, like.shape)
        return np.stack([take(each, kernel, like.shape[1:]) for each in layers])

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
        name, leaf = name_of(keys), np.asarray(value)
        layers = layer_names(name, len(leaf) if leaf.ndim else 0)
        for each, part in zip(
            [str(name)] if layers is None else layers, [leaf] if layers is None else leaf, strict=True
        ):
            if keys[-1] == "kernel":
                part = part.transpose(3, 2, 0, 1) if part.ndim == 4 else part.T
            tensors[each] = part
    return tensors
