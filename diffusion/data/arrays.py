"""Array sources: examples of values 0 .. C-1 instead of text, with labels where the source has them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer

from diffusion.data import fasta, genomes, glyphs, image_files, images, molecules, synthetic
from diffusion.data.packing import Block, Statistics
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import EncodedText, Tokenizer, digest
from diffusion.data.types import ArraySource, MissingData

SOURCES: dict[str, Callable[[DataSettings], ArraySource]] = {
    "mnist": images.mnist,
    "cifar10": images.cifar10,
    "imagenet32": images.imagenet32,
    "cifar10_pairs": lambda settings: images.as_pixel_pairs(images.cifar10(settings)),
    "imagenet32_pairs": lambda settings: images.as_pixel_pairs(images.imagenet32(settings)),
    "image_files": image_files.image_files,
    "density2d": synthetic.density2d,
    "blobs": synthetic.blobs,
    "simple_molecules": synthetic.simple_molecules,
    "simple_introns": synthetic.simple_introns,
    "shapes": glyphs.shapes,
    "shapes_rewards": glyphs.shapes_rewards,
    "gaussian_mixture": synthetic.gaussian_mixture,
    "qm9": molecules.qm9,
    "splice_sites": genomes.splice_sites,
    "genomes_small": genomes.genomes_small,
    "ten_species": genomes.ten_species,
    "fasta": fasta.own_fasta,
    "smiles": molecules.own_smiles,
}
# Sources whose vocabulary and labels are found in the user's files.
OWN = ("fasta", "smiles")

# Networks are built from these without reading data.
SHAPES = {
    "mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "imagenet32": (32, 32, 3),
    "cifar10_pairs": (32, 32, 2),
    "imagenet32_pairs": (32, 32, 2),
    "blobs": (8, 8, 1),
    "shapes": (16, 16, 3),
    "shapes_rewards": (16, 16, 3),
}
LABELS = {
    "mnist": 10,
    "cifar10": 10,
    "cifar10_pairs": 10,
    "blobs": 4,
    "simple_introns": 3,
    "splice_sites": 3,
    "genomes_small": 4,
    "ten_species": 10,
    "fasta": 0,  # without data.labels
}


def image_shape(data: Any) -> tuple[int, int, int]:
    """Height, width and number of color channels of the images of `data.source`.

    Raises: ValueError for a source without images.
    """
    if data.source == "image_files":
        return image_files.square(data)
    if data.source not in SHAPES:
        raise ValueError(f"data.source: {data.source!r} holds no images; known: image_files, {', '.join(SHAPES)}")
    return SHAPES[data.source]


def label_count(data: Any) -> int:
    """Number of classes of the labels of `data.source`, of a user's images those that the folder has.

    It is 0 for own sequences, whose labels are found in their files.

    Raises: ValueError for a source without labels.
    """
    if data.source == "image_files":
        return image_files.class_count(data.path)
    if data.source not in LABELS:
        raise ValueError(f"data.source: {data.source!r} has no labels; known: image_files, {', '.join(LABELS)}")
    return LABELS[data.source]


def values_tokenizer(size: int) -> Tokenizer:
    """Tokenizer of numbers 0 .. size-1 (pixel values or coordinates), without EOS and without encoding of text.

    Each token counts as one character and one byte, so that bits per byte are bits per dimension, and decodes to its
    number.
    Raises: ValueError on encoding a text that is not empty.
    """

    def encode_spans(texts):
        if any(texts):
            raise ValueError("sample.prompt: values of arrays have no text form; leave prompt and suffix empty")
        empty = np.zeros(0, np.int32)
        return [EncodedText(empty, empty, empty) for _ in texts]

    def decode_text(ids):
        return " ".join(str(value) for value in ids)

    ones = np.ones(size, np.int32)
    return Tokenizer("values", size, None, None, digest("values", str(size)), encode_spans, decode_text, ones, ones)


def open_arrays(settings: DataSettings) -> ArraySource:
    """Opens `data.source` and checks that the fields of `data` agree with its content.

    Networks are built from these fields without reading data, so a field that disagrees is an error. A source of images
    without `data.path` has no splits.
    Raises: ValueError naming the field and its correct value, or the file that is damaged or missing and its origin.
    """
    try:
        source = SOURCES[settings.source](settings)
    except MissingData as error:
        if settings.path or settings.source not in SHAPES:
            raise
        source = without_images(settings.source, str(error))
    tokenizer = source.tokenizer.name if source.tokenizer else "values"
    required = {"length": source.length, "tokenizer": tokenizer, "packing": "wrapped"}
    required |= {} if settings.source in OWN else {"vocab_size": source.vocab_size}
    for field, value in required.items():
        if (setting := getattr(settings, field)) != value:
            remedy = f"pass --config.data.{field}={value}"
            raise ValueError(f"data.{field}: {setting!r} does not fit {settings.source}; {remedy}")
    if settings.flip and source.image is None:
        raise ValueError(f"data.flip: {settings.source} holds no images; pass --config.data.flip=False")
    return source


def without_images(name: str, missing: str) -> ArraySource:
    """The source of images of that name, without its images, which are `missing`."""
    shape, values = SHAPES[name], 4096 if name.endswith("_pairs") else 256
    labels = LABELS.get(name, 0)
    return ArraySource(name, {}, math.prod(shape), values, shape, labels, domain="image", missing=missing)


def counted(start: Callable[[], Iterator[Block]], source: ArraySource, statistics: Statistics) -> Iterator[Block]:
    """Yields the blocks unchanged, checks their shapes and values, and adds their counts to `statistics`.

    Raises: ValueError naming a value outside the vocabulary of the source.
    """
    for block in start():
        tokens = block["tokens"]
        if tokens.shape[1:] != (source.length,) or not np.issubdtype(tokens.dtype, np.integer):
            raise ValueError(f"data.path: {source.name} gives {tokens.dtype} rows of {tokens.shape[1:]}")
        outside = tokens[(tokens < 0) | (tokens >= source.vocab_size)]
        if outside.size:
            raise ValueError(f"data.path: {source.name} holds {outside[0]}, outside 0 .. {source.vocab_size - 1}")
        statistics.examples += len(tokens)
        statistics.documents += len(tokens)
        statistics.tokens += tokens.size
        covered = source.tokenizer.covered(tokens) if source.tokenizer else (tokens.size, tokens.size)
        assert covered is not None
        statistics.characters += covered[0]
        statistics.bytes += covered[1]
        if len(tokens):
            yield block


def as_pixels(
    image: tuple[int, int, int], tokens: Integer[np.ndarray, "N L"]
) -> tuple[Integer[np.ndarray, "N M"], tuple[int, int, int]]:
    """One value per pixel and color channel of images (h, w, c), unpacked where c = 2, and the shape of the result."""
    height, width, colors = image
    if colors == 2:
        return images.unpack_pixel_pairs(tokens), (height, width, 3)
    return np.asarray(tokens), image


def mirror(
    tokens: Integer[np.ndarray, "B L"], image: tuple[int, int, int], coins: Bool[np.ndarray, " B"]
) -> Integer[np.ndarray, "B L"]:
    """Mirrors channel-major images [B, (c h w)] of shape (h, w, c) left to right where the coin is true."""
    height, width, colors = image
    images = tokens.reshape(-1, colors, height, width)
    return np.where(coins[:, None, None, None], images[..., ::-1], images).reshape(tokens.shape)
