"""Generated examples of which everything is known: a density, pictures of blobs, simple molecules and splice sites."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from diffusion.data import genomes, molecules
from diffusion.data.packing import PackedBlock
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource

POINTS = {"train": 1_000_000, "validation": 20_000, "test": 20_000}
PICTURES = {"train": 2048, "validation": 256, "test": 256}
BLOB_SIDE = 8
# Shares of A, C, G, T by the name of an invented species, and records of each.
LETTER_SHARES = {"rich_in_AT": (0.35, 0.15, 0.15, 0.35), "rich_in_GC": (0.15, 0.35, 0.35, 0.15)}
LETTER_SHARES |= {"rich_in_CT": (0.15, 0.35, 0.15, 0.35)}
RECORDS = 400
# Letters of an exon and of the shortest intron, as in `splice_sites`.
EXON, INTRON = 50, 40


def density_table(size: int = 512) -> Float[np.ndarray, "X Y"]:
    """Probabilities of all (x, y) in 0 .. size-1, summing to one: structure at several scales, sharp and smooth.

    Two spiral arms, rings whose spacing shrinks outwards, a checkerboard of four scales, and a faint floor that keeps
    every cell possible. Its entropy is the least loss that any model of the `density2d` source can have.
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
    """Points (x, y) drawn from `density_table(data.vocab_size)`: two tokens an example."""
    size = settings.vocab_size
    if size < 2:
        raise ValueError(f"data.vocab_size: density2d needs a side of at least 2, not {size}")
    cumulative = np.cumsum(density_table(size).reshape(-1))

    def points(seed: int, count: int) -> Iterator[PackedBlock]:
        uniform = np.random.default_rng((seed, size)).random(count) * cumulative[-1]
        cells = np.minimum(np.searchsorted(cumulative, uniform, side="right"), size**2 - 1)
        yield PackedBlock(np.stack(np.divmod(cells, size), axis=1).astype(np.int32 if size > 2**15 else np.int16), None)

    splits = {
        split: lambda seed=seed, count=count: points(seed, count) for seed, (split, count) in enumerate(POINTS.items())
    }
    return ArraySource("density2d", splits, 2, size)


def blobs(settings: DataSettings) -> ArraySource:
    """Grey pictures of 8 x 8 pixels with one bright round blob; the label is the quarter that it lies in.

    Values are quantized to `data.vocab_size` levels: the smallest image set that a network can learn from.
    """
    levels = settings.vocab_size
    if not 2 <= levels <= 256:
        raise ValueError(f"data.vocab_size: blobs has 2 to 256 gray levels, not {levels}")

    def pictures(seed: int, count: int) -> Iterator[PackedBlock]:
        rng = np.random.default_rng((seed, levels))
        labels = rng.integers(0, 4, count)
        low = np.stack([labels // 2, labels % 2], axis=1) * BLOB_SIDE / 2
        centers = low + rng.uniform(0.5, BLOB_SIDE / 2 - 0.5, (count, 2))
        widths = rng.uniform(0.8, 1.6, (count, 1, 1))
        yield PackedBlock(drawn(centers, widths, levels), None, labels.astype(np.int32))

    splits = {
        split: lambda seed=seed, count=count: pictures(seed, count)
        for seed, (split, count) in enumerate(PICTURES.items())
    }
    image = (BLOB_SIDE, BLOB_SIDE, 1)
    return ArraySource("blobs", splits, BLOB_SIDE**2, levels, image, labels=4, domain="image")


def drawn(
    centers: Float[np.ndarray, "N 2"], widths: Float[np.ndarray, "N 1 1"], levels: int
) -> UInt8[np.ndarray, "N 64"]:
    """Gaussian bumps sampled at pixel centers, brightest at levels - 1."""
    at = np.arange(BLOB_SIDE) + 0.5
    down = (at[None, :, None] - centers[:, :1, None]) ** 2
    across = (at[None, None, :] - centers[:, 1:, None]) ** 2
    bright = np.exp(-(down + across) / (2 * widths**2))
    return np.round(bright * (levels - 1)).astype(np.uint8).reshape(len(centers), -1)


def simple_molecules(settings: DataSettings) -> ArraySource:
    """SMILES of all chains of 3 to 5 atoms C, N, O, as they are, with a methyl group, or closed to a ring.

    All bonds are single ones, so that every string is a valid molecule.
    """
    texts = []
    for length in (3, 4, 5):
        for first, second, *rest in itertools.product("CNO", repeat=length):
            end = "".join(rest)
            texts += [f"{first}{second}{end}", f"{first}1{second}{end}1"]
            # An oxygen has no bond to spare.
            texts += [f"{first}{second}(C){end}"] if second != "O" else []
    return molecules.packed("simple_molecules", texts, settings)


def simple_introns(settings: DataSettings) -> ArraySource:
    """Exon (50), intron, exon (50) of random letters for three invented species that differ in their letters' shares.

    An intron starts with GT, ends with AG and has 40 letters or up to 10 more, as far as they fit `data.length`.
    """
    most = min(settings.length - 2 * EXON - 2, INTRON + 10)
    if most < INTRON:
        least = 2 * EXON + INTRON + 2
        raise ValueError(f"data.length: {settings.length} is too short; pass --config.data.length={least}, or more")
    random, letters = np.random.default_rng(0), np.array(list("ACGT"))
    of_species = []
    for species, shares in LETTER_SHARES.items():
        sites = []
        for length in random.integers(INTRON, most + 1, RECORDS):
            first, intron, last = ("".join(random.choice(letters, size, p=shares)) for size in (EXON, length - 4, EXON))
            sites.append(f"{first}GT{intron}AG{last}")
        genes = [f"{species} {number}" for number in range(RECORDS)]
        of_species.append((sites, genes, Path(species)))
    return genomes.spliced("simple_introns", of_species, tuple(LETTER_SHARES), settings)
