"""Generated sources with known distributions: densities, images of blobs, simple molecules and splice sites."""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffusion.data import genomes, molecules
from diffusion.data.packing import Block, token_dtype
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource

POINTS = {"train": 1_000_000, "validation": 20_000, "test": 20_000}
BLOBS = {"train": 2048, "validation": 256, "test": 256}
BLOB_SIDE = 8
# Probabilities of A, C, G, T of each synthetic species, and its number of records.
LETTER_PROBABILITIES = {"rich_in_AT": (0.35, 0.15, 0.15, 0.35), "rich_in_GC": (0.15, 0.35, 0.35, 0.15)}
LETTER_PROBABILITIES |= {"rich_in_CT": (0.15, 0.35, 0.15, 0.35)}
RECORDS = 400
# Letters of an exon and of the shortest intron, as in `splice_sites`.
EXON, INTRON = 50, 40
# Weights, means and standard deviations of the reference mixture.
MIXTURE = ((0.5, 0.3, 0.2), (-2.0, 0.5, 2.0), (0.5, 0.4, 0.6))
MIXTURE_POINTS = {"train": 20_000, "validation": 2000, "test": 20_000}
LOWEST, HIGHEST = -6.0, 6.0


def density_table(size: int = 512) -> Float[np.ndarray, "X Y"]:
    """Probabilities of all (x, y) in 0 .. size-1, with sharp and smooth structure at several scales.

    Two spiral arms, rings whose spacing decreases outwards, a checkerboard of four scales, and a constant floor that
    makes every cell possible. Its entropy is a lower bound on the loss of any model of the `density2d` source.
    """
    grid = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(grid, grid, indexing="ij")

    radius, angle = np.hypot(x + 0.45, y - 0.45), np.arctan2(y - 0.45, x + 0.45)
    spirals = np.exp(-8 * radius**2) * (0.5 + 0.5 * np.cos(2 * angle - 40 * radius)) ** 4

    radius = np.hypot(x - 0.45, y - 0.45)
    rings = np.exp(-6 * radius**2) * (0.5 + 0.5 * np.cos(120 * radius**1.5)) ** 6

    checker = np.zeros((size, size))
    for quarter, cells in enumerate((4, 8, 16, 32)):
        square = (np.floor((x + 1) * cells) + np.floor((y + 1) * cells)) % 2
        inside = (x >= -1 + 0.5 * quarter) & (x < -0.5 + 0.5 * quarter) & (y < -0.15) & (y > -0.85)
        checker += square * inside

    parts = [(0.35, spirals), (0.30, rings), (0.30, checker), (0.05, np.ones((size, size)))]
    table = sum((share * part / part.sum() for share, part in parts), start=np.zeros((size, size)))
    return table / table.sum()


def density2d(settings: DataSettings) -> ArraySource:
    """Points (x, y) drawn from `density_table(data.vocab_size)`, two tokens per example."""
    size = settings.vocab_size
    if size < 2:
        raise ValueError(f"data.vocab_size: density2d needs a side of at least 2, not {size}")
    cumulative = np.cumsum(density_table(size).reshape(-1))

    def points(seed: int, count: int) -> Iterator[Block]:
        uniform = np.random.default_rng((seed, size)).random(count) * cumulative[-1]
        cells = np.minimum(np.searchsorted(cumulative, uniform, side="right"), size**2 - 1)
        yield {"tokens": np.stack(np.divmod(cells, size), axis=1).astype(token_dtype(size - 1))}

    splits = {split: partial(points, seed, count) for seed, (split, count) in enumerate(POINTS.items())}
    return ArraySource("density2d", splits, 2, size)


def blobs(settings: DataSettings) -> ArraySource:
    """Gray images of 8 x 8 pixels with one bright round blob, labeled by the quadrant of its center.

    Values are quantized to `data.vocab_size` levels, at most 256.
    """
    levels = settings.vocab_size
    if not 2 <= levels <= 256:
        raise ValueError(f"data.vocab_size: blobs has 2 to 256 gray levels, not {levels}")

    def images(seed: int, count: int) -> Iterator[Block]:
        rng = np.random.default_rng((seed, levels))
        labels = rng.integers(0, 4, count)
        low = np.stack([labels // 2, labels % 2], axis=1) * BLOB_SIDE / 2
        centers = low + rng.uniform(0.5, BLOB_SIDE / 2 - 0.5, (count, 2))
        widths = rng.uniform(0.8, 1.6, (count, 1, 1))
        # Gaussian bumps sampled at pixel centers, with maximum levels - 1.
        at = np.arange(BLOB_SIDE) + 0.5
        down = (at[None, :, None] - centers[:, :1, None]) ** 2
        across = (at[None, None, :] - centers[:, 1:, None]) ** 2
        bright = np.exp(-(down + across) / (2 * widths**2))
        tokens = np.round(bright * (levels - 1)).astype(np.uint8).reshape(count, -1)
        yield {"tokens": tokens, "label": labels.astype(np.int32)}

    splits = {split: partial(images, seed, count) for seed, (split, count) in enumerate(BLOBS.items())}
    image = (BLOB_SIDE, BLOB_SIDE, 1)
    return ArraySource("blobs", splits, BLOB_SIDE**2, levels, image, labels=4, domain="image")


def simple_molecules(settings: DataSettings) -> ArraySource:
    """SMILES of all chains of 3 to 5 atoms C, N, O: open, with a methyl group, or closed to a ring.

    All bonds are single, so that every string is a valid molecule.
    """
    texts = []
    for length in (3, 4, 5):
        for first, second, *rest in itertools.product("CNO", repeat=length):
            end = "".join(rest)
            texts += [f"{first}{second}{end}", f"{first}1{second}{end}1"]
            # An oxygen in a chain has no free bond.
            texts += [f"{first}{second}(C){end}"] if second != "O" else []
    return molecules.molecule_source("simple_molecules", molecules.by_hash(texts), settings)


def simple_introns(settings: DataSettings) -> ArraySource:
    """Exon (50), intron, exon (50) of random letters, for three synthetic species that differ in letter frequencies.

    An intron starts with GT, ends with AG and has 40 to 50 letters, limited by `data.length`.
    """
    longest = min(settings.length - 2 * EXON - 2, INTRON + 10)
    if longest < INTRON:
        least = 2 * EXON + INTRON + 2
        raise ValueError(f"data.length: {settings.length} is too short; pass --config.data.length={least}, or more")
    random, letters = np.random.default_rng(0), np.array(list("ACGT"))
    records = []
    for species, probabilities in LETTER_PROBABILITIES.items():
        sites = []
        for length in random.integers(INTRON, longest + 1, RECORDS):
            first, intron, last = (
                "".join(random.choice(letters, size, p=probabilities)) for size in (EXON, length - 4, EXON)
            )
            sites.append(f"{first}GT{intron}AG{last}")
        genes = [f"{species} {number}" for number in range(RECORDS)]
        records.append((sites, genes, Path(species)))
    return genomes.splice_site_source("simple_introns", records, tuple(LETTER_PROBABILITIES), settings)


def gaussian_mixture(settings: DataSettings) -> ArraySource:
    """Draws from a mixture of three scalar Gaussians, rounded to one of `data.vocab_size` values in [-6, 6]."""
    levels = settings.vocab_size

    def points(seed: int, count: int) -> Iterator[Block]:
        weights, means, deviations = (np.array(column) for column in MIXTURE)
        rng = np.random.default_rng((seed, levels))
        component = rng.choice(len(weights), count, p=weights)
        x = rng.normal(means[component], deviations[component])
        nearest = np.round((x - LOWEST) / (HIGHEST - LOWEST) * (levels - 1))
        yield {"tokens": np.clip(nearest, 0, levels - 1).astype(np.int32)[:, None]}

    splits = {split: partial(points, seed, count) for seed, (split, count) in enumerate(MIXTURE_POINTS.items())}
    return ArraySource("gaussian_mixture", splits, 1, levels, domain="mixture")
