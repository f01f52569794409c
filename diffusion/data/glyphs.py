"""Sources for Gaussian diffusion: pictures of prompts, the same with rewards, and draws from a mixture on a line."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8

from diffusion.data.packing import PackedBlock
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource
from diffusion.glyphs import world

# Seeds and sizes of the splits; prompts of a split are of that split alone (see `shapes_prompts.prompts`).
PICTURES = {"train": (0, 30_000), "validation": (1, 1000), "test": (2, 1000)}
# Rewards are learned from more: of half as many pictures they learn by heart what they are worth.
REWARDED = PICTURES | {"train": (0, 60_000)}
SHAPE = (world.SIDE, world.SIDE, 3)
# Weights, means and standard deviations of the reference mixture (specification of LiDAR, 8.1).
MIXTURE = ((0.5, 0.3, 0.2), (-2.0, 0.5, 2.0), (0.5, 0.4, 0.6))
POINTS = {"train": 20_000, "validation": 2000, "test": 20_000}
LOWEST, HIGHEST = -6.0, 6.0


def shapes(settings: DataSettings) -> ArraySource:
    """Scenes of glyphs (16 x 16, three colors) that fulfill their prompts, over GenEval's six tasks alike."""
    del settings

    def pictures(split: str) -> Iterator[PackedBlock]:
        made = world.examples(*PICTURES[split], split)
        yield PackedBlock(rows(made.images), None, prompts=made.tokens)

    return prompted("shapes", pictures)


def shapes_rewards(settings: DataSettings) -> ArraySource:
    """Scenes with prompts that they fulfill, miss by one thing, or have nothing to do with, and the share fulfilled."""
    del settings

    def pictures(split: str) -> Iterator[PackedBlock]:
        made = world.reward_examples(*REWARDED[split], split)
        yield PackedBlock(rows(made.images), None, prompts=made.tokens, scores=made.rewards)

    return prompted("shapes_rewards", pictures)


def prompted(name: str, pictures: Callable[[str], Iterator[PackedBlock]]) -> ArraySource:
    """A source of pictures with prompts."""
    splits = {split: lambda split=split: pictures(split) for split in PICTURES}
    return ArraySource(name, splits, int(np.prod(SHAPE)), 256, SHAPE, domain="prompted")


def rows(images: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N L"]:
    """Pictures as channel-major rows."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def gaussian_mixture(settings: DataSettings) -> ArraySource:
    """Draws from a mixture of three Gaussians on a line, rounded to one of `data.vocab_size` values in [-6, 6]."""
    levels = settings.vocab_size

    def points(seed: int, count: int) -> Iterator[PackedBlock]:
        weights, means, deviations = (np.array(column) for column in MIXTURE)
        rng = np.random.default_rng((seed, levels))
        which = rng.choice(len(weights), count, p=weights)
        x = rng.normal(means[which], deviations[which])
        yield PackedBlock(level_of(x, levels)[:, None], None)

    splits = {
        split: lambda seed=seed, count=count: points(seed, count) for seed, (split, count) in enumerate(POINTS.items())
    }
    return ArraySource("gaussian_mixture", splits, 1, levels, domain="mixture")


def level_of(x: Float[np.ndarray, " N"], levels: int) -> Int[np.ndarray, " N"]:
    """The nearest of the levels, the outer ones for what lies outside."""
    return np.clip(np.round((x - LOWEST) / (HIGHEST - LOWEST) * (levels - 1)), 0, levels - 1).astype(np.int32)
