"""Public checkpoints of MDM-Prime on images, ADM's U-Net behind a table of pixel embeddings, as parameters of `UNet`.

Blocks of the network and of the file are numbered alike, but pools have a number of their own in the file, and the
input, which is no layer here, is its number 0.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion.convert.files import read_tensors
from diffusion.convert.template import LEAVES, NameOf, fill
from diffusion.nets.discrete_unet import UNet
from diffusion.nets.discrete_unet_layout import runs
from diffusion.types import Params

VALUES = 256  # of a pixel's color, the classes of networks over sub-tokens
# Published, and not to be seen in shapes: the size of the images, channels per head, groups and epsilon of group norms.
SIDE, HEAD_CHANNELS, GROUPS, EPSILON = 32, 64, 32, 1e-5
PREFIX = "unet."
TABLE = "pixel_embedding.embedding_table.weight"
# Modules and single leaves of a block and of its attention, and their names in files.
BLOCK = {
    "norm1": "in_layers.0",
    "conv1/conv": "in_layers.2",
    "constant": "emb_layers.embedding_table",
    "norm2": "out_layers.0",
    "conv2/conv": "out_layers.3",
    "skip": "skip_connection",
}
ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
ENDS = {"norm": "out.0", "head/conv": "out.2"}


def modules_of(net: UNet) -> dict[str, list[str]]:
    """Return the names in the file of each block, and of its attention, by the module that holds its parameters."""
    names: dict[str, list[str]] = {}
    inputs, outputs, middle, number = 1, 0, 0, 0
    for run in runs(net.parts()):
        blocks, attention = [], []
        for part in run:
            place, layer = f"input_blocks.{inputs}", 0
            if part.joins:
                place, outputs = f"output_blocks.{outputs}", outputs + 1
            elif not part.stores:
                place, layer, middle = "middle_block", middle, middle + 1 + part.attention
            inputs += part.stores
            if part.kind == "block":
                blocks.append(f"{PREFIX}{place}.{layer}")
                attention.append(f"{PREFIX}{place}.{layer + 1}")
        if blocks:
            own = ("block{}", "attention{}") if len(run) == 1 else ("blocks{}/block", "blocks{}/attention")
            names |= {each.format(number): found for each, found in zip(own, (blocks, attention), strict=True)}
            number += len(run)
    return names


def names_of(net: UNet) -> NameOf:
    """Return the names of the tensors of a network, by their path in its parameters."""
    modules = modules_of(net)

    def name_of(keys: tuple[str, ...]) -> str | list[str]:
        if keys == ("embedding", "table"):
            return TABLE
        if keys[0] in ("norm", "head"):
            return PREFIX + name_within(ENDS, keys)
        looped = keys[0].startswith("blocks")
        module, rest = "/".join(keys[: 1 + looped]), keys[1 + looped :]
        within = name_within(ATTENTION if "attention" in module else BLOCK, rest)
        names = [f"{each}.{within}" for each in modules[module]]
        return names if looped else names[0]

    return name_of


def name_within(names: Mapping[str, str], keys: tuple[str, ...]) -> str:
    """Return the name of a leaf by those of modules and single leaves."""
    path = "/".join(keys)
    if path in names:
        return names[path]
    module, _, last = path.rpartition("/")
    return f"{names[module]}.{LEAVES.get(last, last)}"


def load_unet(path: str | Path) -> tuple[dict[str, Any], Params]:
    """Return (arguments of `UNet`, parameters) of a checkpoint; a table of whole symbols is no table of sub-tokens.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a tensor is missing, not used, or has another shape than the network.
    """
    tensors = read_tensors(path)
    sizes = sizes_of(tensors, str(path))
    net = UNet(**sizes)
    ids = np.zeros((1, math.prod(net.shape) * net.digits), np.int32)
    template = jax.eval_shape(net.init, jax.random.key(0), ids)["params"]
    return sizes, fill(template, tensors, names_of(net), str(path))


def sizes_of(tensors: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    """Return the arguments of `UNet` by the shapes of the tensors of a file, which `source` names.

    Raises:
      ValueError: if a tensor is missing, or the table of pixels does not fit the first and the last layer.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise ValueError(f"checkpoint: '{source}' has no tensor '{name}'; is it a U-Net of MDM-Prime?")
        return tensors[name].shape

    rows, width = shape(TABLE)
    outputs, _, size, _ = shape(f"{PREFIX}out.2.weight")
    first = shape(f"{PREFIX}input_blocks.1.0.in_layers.0.weight")[0]
    last = max(int(found[1]) for name in tensors if (found := re.match(rf"{PREFIX}input_blocks\.(\d+)\.", name)))
    levels: list[list[tuple[int, bool]]] = [[]]
    for number in range(1, last + 1):
        block = f"{PREFIX}input_blocks.{number}"
        if f"{block}.0.out_layers.3.weight" in tensors:
            levels[-1].append((shape(f"{block}.0.out_layers.3.weight")[0], f"{block}.1.norm.weight" in tensors))
        else:
            levels.append([])  # a pool has no tensors
    if not all(levels):
        raise ValueError(f"checkpoint: '{source}' lacks blocks among its input_blocks; is it a U-Net of MDM-Prime?")
    # Networks over whole symbols have a row of the table and an output for each of them and for the mask.
    symbols = first // width
    whole = outputs == symbols * rows
    colors, classes = (symbols, rows) if whole else (outputs // VALUES, VALUES)
    if not colors or first % width or symbols % colors or outputs != colors * classes:
        raise ValueError(
            f"checkpoint: a table of {rows} x {width} does not fit {first} channels and {outputs} outputs of '{source}'"
        )
    widths = [level[0][0] for level in levels]
    channels, embedded = math.gcd(*widths), width * symbols // colors
    return dict(
        shape=(SIDE, SIDE, colors),
        classes=classes,
        base=rows - 1,
        digits=symbols // colors,
        channels=channels,
        multipliers=tuple(each // channels for each in widths),
        res_blocks=len(levels[0]),
        attention_factors=tuple(2**number for number, level in enumerate(levels) if level[0][1]),
        head_channels=HEAD_CHANNELS,
        groups=GROUPS,
        head_size=size,
        embedding_channels=embedded if embedded != channels else 0,
        norm_epsilon=EPSILON,
    )
