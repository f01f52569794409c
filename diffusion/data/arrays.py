"""Sources of ready-made examples: arrays of values 0 .. C-1 instead of text, with labels where the source has them."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from jaxtyping import Bool, Integer

from diffusion.data import genomes, glyphs, images, molecules, synthetic
from diffusion.data.packing import PackedBlock, Statistics
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import Encoded, Tokenizer, digest
from diffusion.data.types import ArraySource

SOURCES: dict[str, Callable[[DataSettings], ArraySource]] = {
    "mnist": images.mnist,
    "cifar10": images.cifar10,
    "imagenet32": images.imagenet32,
    "cifar10_pairs": lambda settings: images.in_pairs(images.cifar10(settings)),
    "imagenet32_pairs": lambda settings: images.in_pairs(images.imagenet32(settings)),
    "density2d": synthetic.density2d,
    "blobs": synthetic.blobs,
    "simple_molecules": synthetic.simple_molecules,
    "simple_introns": synthetic.simple_introns,
    "shapes": glyphs.shapes,
    "shapes_rewards": glyphs.shapes_rewards,
    "gaussian_mixture": glyphs.gaussian_mixture,
    "qm9": molecules.qm9,
    "splice_sites": genomes.splice_sites,
    "genomes_small": genomes.genomes_small,
    "ten_species": genomes.ten_species,
}

# Known without reading data: networks are built from them.
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
}


def image_shape(source: str) -> tuple[int, int, int]:
    """Height, width and colors of a source's images; raises ValueError for one without."""
    if source not in SHAPES:
        raise ValueError(f"data.source: {source!r} holds no images; known: {', '.join(SHAPES)}")
    return SHAPES[source]


def label_count(source: str) -> int:
    """Classes that a source's labels name; raises ValueError for one without."""
    if source not in LABELS:
        raise ValueError(f"data.source: {source!r} has no labels; known: {', '.join(LABELS)}")
    return LABELS[source]


def values_tokenizer(size: int) -> Tokenizer:
    """Tokens that are numbers 0 .. size-1: pixel values or coordinates, with no EOS and no text to encode.

    Each counts as one character and one byte, so that bits per byte are bits per dimension; they decode to numbers.
    Raises: ValueError on encoding a text that is not empty.
    """

    def encode_spans(texts):
        if any(texts):
            raise ValueError(
                "sample.prompt: values of ready-made arrays have no text form; leave prompt and suffix empty"
            )
        return [Encoded(*(np.zeros(0, np.int32) for _ in range(3))) for _ in texts]

    def decode_text(ids):
        return " ".join(str(value) for value in ids)

    ones = np.ones(size, np.int32)
    return Tokenizer("values", size, None, None, digest("values", str(size)), encode_spans, decode_text, ones, ones)


def open_arrays(settings: DataSettings) -> ArraySource:
    """Opens `data.source` and checks that the fields of `data` say what the source holds.

    A network is built from these fields without reading data, so a wrong one is an error rather than ignored.
    Raises: ValueError naming the field and its right value.
    """
    source = SOURCES[settings.source](settings)
    tokenizer = source.tokenizer.name if source.tokenizer else "values"
    right = {"length": source.length, "vocab_size": source.vocab_size, "tokenizer": tokenizer, "packing": "wrapped"}
    for field, value in right.items():
        given = getattr(settings, field)
        if given != value:
            raise ValueError(
                f"data.{field}: {given!r} does not fit {settings.source}; pass --config.data.{field}={value}"
            )
    if settings.flip and source.image is None:
        raise ValueError(f"data.flip: {settings.source} holds no images; pass --config.data.flip=False")
    return source


def counted(blocks: Iterator[PackedBlock], source: ArraySource, statistics: Statistics) -> Iterator[PackedBlock]:
    """The same blocks, their shape and values checked, counted in `statistics` as they pass.

    Raises: ValueError naming a value that the source should not hold.
    """
    for block in blocks:
        if block.tokens.shape[1:] != (source.length,) or not np.issubdtype(block.tokens.dtype, np.integer):
            raise ValueError(f"data.path: {source.name} gives {block.tokens.dtype} rows of {block.tokens.shape[1:]}")
        outside = block.tokens[(block.tokens < 0) | (block.tokens >= source.vocab_size)]
        if outside.size:
            raise ValueError(f"data.path: {source.name} holds {outside[0]}, outside 0 .. {source.vocab_size - 1}")
        statistics.examples += len(block.tokens)
        statistics.documents += len(block.tokens)
        statistics.tokens += block.tokens.size
        if source.tokenizer is None:
            characters = width = block.tokens.size
        else:
            covered = source.tokenizer.covered(block.tokens)
            assert covered is not None
            characters, width = covered
        statistics.characters += characters
        statistics.bytes += width
        yield block


def in_memory(source: ArraySource) -> tuple[dict[str, PackedBlock], dict[str, Statistics]]:
    """All examples of every split as one block each, and what they hold; splits without an example are left out.

    Raises: ValueError when the train split has none.
    """
    blocks, statistics = {}, {}
    for split, start in source.splits.items():
        counts = Statistics()
        parts = list(counted(start(), source, counts))
        if not counts.examples:
            if split == "train":
                raise ValueError(
                    f"data.length: the train split of {source.name} has no example of {source.length} tokens; pass "
                    "another --config.data.length, or more data"
                )
            continue
        order = np.random.default_rng(0).permutation(counts.examples) if source.shuffled else slice(None)
        tokens, _, *told = zip(*parts, strict=True)
        told = (None if array[0] is None else np.concatenate(array)[order] for array in told)
        blocks[split] = PackedBlock(np.concatenate(tokens)[order], None, *told)
        statistics[split] = counts
    return blocks, statistics


def as_pixels(
    source: str, tokens: Integer[np.ndarray, "N L"]
) -> tuple[Integer[np.ndarray, "N M"], tuple[int, int, int]]:
    """One value a pixel and color, and the picture's shape: as tokens are, or unpacked from pairs."""
    height, width, colors = image_shape(source)
    if source.endswith("_pairs"):
        return images.pixels_of_pairs(tokens), (height, width, 3)
    return np.asarray(tokens), (height, width, colors)


def flipped(
    tokens: Integer[np.ndarray, "B L"], image: tuple[int, int, int], coins: Bool[np.ndarray, " B"]
) -> Integer[np.ndarray, "B L"]:
    """Channel-major images [B, (c h w)] of shape (h, w, c), mirrored left to right where the coin is true."""
    height, width, colors = image
    pictures = tokens.reshape(-1, colors, height, width)
    return np.where(coins[:, None, None, None], pictures[..., ::-1], pictures).reshape(tokens.shape)


def content(blocks: Mapping[str, PackedBlock]) -> str:
    """sha256 over the examples of every split, and what is known of them."""
    parts: list[bytes] = []
    for split, block in sorted(blocks.items()):
        parts += [split.encode(), np.ascontiguousarray(block.tokens).tobytes()]
        parts += [] if block.labels is None else [np.asarray(block.labels, np.int32).tobytes()]
        parts += [np.ascontiguousarray(told).tobytes() for told in (block.prompts, block.scores) if told is not None]
    return digest(*parts)
