"""Sources for Gaussian diffusion: images with prompts, images with rewards, and draws from a scalar mixture."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from diffusion.data.packing import PackedBlock
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource
from diffusion.glyphs import world

# Seeds and sizes of the splits; a prompt is in one split alone (see `glyphs.prompts.prompts`).
PICTURES = {"train": (0, 30_000), "validation": (1, 1000), "test": (2, 1000)}
# Reward models overfit half as many images.
REWARDED = PICTURES | {"train": (0, 60_000)}
SHAPE = (world.SIDE, world.SIDE, 3)
# Weights, means and standard deviations of the reference mixture.
MIXTURE = ((0.5, 0.3, 0.2), (-2.0, 0.5, 2.0), (0.5, 0.4, 0.6))
POINTS = {"train": 20_000, "validation": 2000, "test": 20_000}
LOWEST, HIGHEST = -6.0, 6.0


def shapes(settings: DataSettings) -> ArraySource:
    """Scenes of glyphs (16 x 16, three colors) that fulfill their prompts, uniform over GenEval's six tasks."""
    del settings

    def read(split: str) -> Iterator[PackedBlock]:
        examples = world.examples(*PICTURES[split], split)
        yield PackedBlock(channel_major(examples.images), None, prompts=examples.tokens)

    return prompted_image_source("shapes", read)


def shapes_rewards(settings: DataSettings) -> ArraySource:
    """Scenes with prompts that they fulfill, narrowly miss, or are unrelated to, and the graded reward of each."""
    del settings

    def read(split: str) -> Iterator[PackedBlock]:
        examples = world.reward_examples(*REWARDED[split], split)
        yield PackedBlock(channel_major(examples.images), None, prompts=examples.tokens, scores=examples.rewards)

    return prompted_image_source("shapes_rewards", read)


def prompted_image_source(name: str, read: Callable[[str], Iterator[PackedBlock]]) -> ArraySource:
    """Source of images with prompts, from a function of the split."""
    splits = {split: lambda split=split: read(split) for split in PICTURES}
    return ArraySource(name, splits, int(np.prod(SHAPE)), 256, SHAPE, domain="prompted")


def channel_major(images: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N L"]:
    """Flattens images to rows in the order (channel, row, column)."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def gaussian_mixture(settings: DataSettings) -> ArraySource:
    """Draws from a mixture of three scalar Gaussians, rounded to one of `data.vocab_size` values in [-6, 6]."""
    levels = settings.vocab_size

    def points(seed: int, count: int) -> Iterator[PackedBlock]:
        weights, means, deviations = (np.array(column) for column in MIXTURE)
        rng = np.random.default_rng((seed, levels))
        component = rng.choice(len(weights), count, p=weights)
        x = rng.normal(means[component], deviations[component])
        yield PackedBlock(level_of(x, levels)[:, None], None)

    splits = {
        split: lambda seed=seed, count=count: points(seed, count) for seed, (split, count) in enumerate(POINTS.items())
    }
    return ArraySource("gaussian_mixture", splits, 1, levels, domain="mixture")


def level_of(x: Float[np.ndarray, " N"], levels: int) -> Int[np.ndarray, " N"]:
    """Index of the nearest level of each value, clipped to the outermost levels."""
    return np.clip(np.round((x - LOWEST) / (HIGHEST - LOWEST) * (levels - 1)), 0, levels - 1).astype(np.int32)
