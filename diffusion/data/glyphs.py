"""Images of glyphs with prompts, and with the rewards of their prompts."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from diffusion.data.packing import Block
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource
from diffusion.glyphs import world

# Seeds and sizes of the splits; a prompt is in one split alone (see `glyphs.prompts.prompts`).
IMAGES = {"train": (0, 30_000), "validation": (1, 1000), "test": (2, 1000)}
# Reward models overfit half as many images.
REWARDED_EXAMPLES = IMAGES | {"train": (0, 60_000)}
SHAPE = (world.SIDE, world.SIDE, 3)


def shapes(settings: DataSettings) -> ArraySource:
    """Scenes of glyphs (16 x 16, three colors) that fulfill their prompts, uniform over GenEval's six tasks."""

    def read(split: str) -> Iterator[Block]:
        examples = world.examples(*IMAGES[split], split)
        yield {"tokens": channel_major(examples.images), "prompt": examples.tokens}

    return prompted_image_source(settings.source, read)


def shapes_rewards(settings: DataSettings) -> ArraySource:
    """Scenes with prompts that they fulfill, narrowly miss, or are unrelated to, and the graded reward of each."""

    def read(split: str) -> Iterator[Block]:
        examples = world.reward_examples(*REWARDED_EXAMPLES[split], split)
        yield {"tokens": channel_major(examples.images), "prompt": examples.tokens, "score": examples.rewards}

    return prompted_image_source(settings.source, read)


def prompted_image_source(name: str, read: Callable[[str], Iterator[Block]]) -> ArraySource:
    """Source of images with prompts, from a function of the split."""
    splits = {split: functools.partial(read, split) for split in IMAGES}
    return ArraySource(name, splits, int(np.prod(SHAPE)), 256, SHAPE, domain="prompted")


def channel_major(images: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N L"]:
    """Flattens images to rows in the order (channel, row, column)."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)
