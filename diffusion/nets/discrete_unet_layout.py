"""The order of blocks, pools and joins in the discrete U-Net."""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal


@dataclass(frozen=True)
class Part:
    """A part of the network.

    `joins` of its `inputs` channels come from the last stored feature map, and `stores` says that it stores its output.
    """

    kind: Literal["block", "pool", "unpool"]
    level: int
    inputs: int = 0
    outputs: int = 0
    attention: bool = False
    joins: int = 0
    stores: bool = False


def layout(
    first: int, channels: int, multipliers: tuple[int, ...], res_blocks: int, attention_factors: tuple[int, ...]
) -> list[Part]:
    """Return the parts in order: `res_blocks` blocks per level down, two in the middle, `res_blocks` + 1 per level up.

    `first` is the width of the first feature map, and `channels * multipliers[i]` that of level i, whose feature maps
    are smaller by 2^i. Blocks with this factor in `attention_factors`, and the first block of the middle, have
    attention.
    """
    parts, stored, width = [], [first], first
    last = len(multipliers) - 1

    def block(level, outputs, attention, joins=False, stores=False):
        nonlocal width
        joined = stored.pop() if joins else 0
        inputs, width = width + joined, outputs
        if stores:
            stored.append(outputs)
        return Part("block", level, inputs, outputs, attention, joined, stores)

    for level, multiplier in enumerate(multipliers):
        attends = 2**level in attention_factors
        parts += [block(level, channels * multiplier, attends, stores=True) for _ in range(res_blocks)]
        if level < last:
            parts.append(Part("pool", level + 1, stores=True))
            stored.append(width)
    parts += [block(last, width, True), block(last, width, False)]
    for level, multiplier in reversed(list(enumerate(multipliers))):
        attends = 2**level in attention_factors
        parts += [block(level, channels * multiplier, attends, joins=True) for _ in range(res_blocks + 1)]
        if level > 0:
            parts.append(Part("unpool", level - 1))
    return parts


def runs(parts: list[Part]) -> list[list[Part]]:
    """Return the runs of consecutive equal parts; the input of every part of a run has the same width."""
    return [list(run) for _, run in groupby(parts)]
