"""Image sets: MNIST, CIFAR-10 and downsampled ImageNet, with one token per pixel value.

Rows are channel-major, (color, row, column), as CIFAR-10 and downsampled ImageNet are stored. All are read from Parquet
files and from the hub by Hugging Face `datasets`, or from the files in which they were published.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int16, Int32, Integer, UInt8

from diffusion.data import data_files, readers, splits, tables
from diffusion.data.packing import Block
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource, missing_data

Shape = tuple[int, int, int]
LabeledImages = tuple[UInt8[np.ndarray, "N L"], Int[np.ndarray, " N"]]

AT_ONCE = 4096
MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def mnist(settings: DataSettings) -> ArraySource:
    """MNIST (28 x 28, gray, ten digits) from Parquet or its idx files, plain or gzipped, with its test split."""
    if parts := table_images(settings, (28, 28, 1)):
        return labeled_image_source("mnist", parts, (28, 28, 1), 10, settings)
    parts = {}
    for split, names in MNIST_FILES.items():
        found = [data_files.find(settings.path, (name, name.replace("-idx", ".idx"))) for name in names]
        files = [file for file in found if file is not None]
        if len(files) < len(names):
            expected = "Parquet files, or train- and t10k- images-idx3-ubyte and labels-idx1-ubyte (.gz or plain)"
            raise missing_data("mnist", expected, settings.path, "https://yann.lecun.com/exdb/mnist or a mirror of it")
        images, labels = map(idx_array, files)
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"data.path: {files[0]} and its labels have shapes {images.shape} and {labels.shape}")
        parts[split] = (images.reshape(len(images), -1), labels.astype(np.int32))
    return labeled_image_source("mnist", parts, (28, 28, 1), 10, settings)


def idx_array(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads an array of unsigned bytes in the idx format: 0, 0, 8, rank, big-endian sizes, values."""
    with readers.open_bytes(path) as stream:
        data = stream.read()
    if data[:3] != b"\0\0\x08" or len(data) < 4 or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"data.path: {path} is not an idx file of bytes; download it again")
    shape = np.frombuffer(data, ">u4", data[3], offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise ValueError(f"data.path: {path} holds {values.size} of {shape.prod()} bytes; download it again")
    return values.reshape(shape)


def cifar10(settings: DataSettings) -> ArraySource:
    """CIFAR-10 (32 x 32, three colors, ten classes) from Parquet or its binary version, at any depth of the folder."""
    if parts := table_images(settings, (32, 32, 3)):
        return labeled_image_source("cifar10", parts, (32, 32, 3), 10, settings)
    files = data_files.files_below(settings.path, "*_batch*.bin")
    batches = {split: [file for file in files if file.name.startswith(start)] for split, start in CIFAR_FILES.items()}
    if not all(batches.values()):
        expected = "Parquet files, or data_batch_1.bin .. 5 and test_batch.bin (the binary version, unpacked),"
        raise missing_data("cifar10", expected, settings.path, "https://www.cs.toronto.edu/~kriz/cifar.html")
    parts = {split: binary_images(paths) for split, paths in batches.items()}
    return labeled_image_source("cifar10", parts, (32, 32, 3), 10, settings)


CIFAR_FILES = {"train": "data_batch_", "test": "test_batch"}


def binary_images(files: list[Path], pixels: int = 3072) -> LabeledImages:
    """Images and labels of CIFAR-10's binary version, whose records are a label byte and the pixels."""
    records = []
    for file in files:
        data = file.read_bytes()
        if not data or len(data) % (pixels + 1):
            size = f"{len(data)} bytes, not a multiple of {pixels + 1}"
            raise ValueError(f"data.path: {file.name} has {size}; download it again")
        records.append(np.frombuffer(data, np.uint8).reshape(-1, pixels + 1))
    table = np.concatenate(records)
    return table[:, 1:], table[:, 0].astype(np.int32)


def imagenet32(settings: DataSettings) -> ArraySource:
    """Downsampled ImageNet at 32 x 32 (Chrabaszcz et al., arXiv 1707.08819), from .npz files at any depth or Parquet.

    Its 50,000 validation images are both the validation and the test split.
    """
    tables_of, content = tables.split_rows(settings)
    reads = {split: functools.partial(table_blocks, read, (32, 32, 3), False) for split, read in tables_of.items()}
    if not reads:
        pattern = re.compile(r"(train_data_batch_\d+|val_data)\.npz")
        files = [file for file in data_files.files_below(settings.path, "*.npz") if pattern.fullmatch(file.name)]
        # By number, so that batch 10 follows batch 9.
        files.sort(key=lambda file: (len(file.name), file.name))
        train = [file for file in files if file.name != "val_data.npz"]
        held_out = [file for file in files if file.name == "val_data.npz"]
        if not train or not held_out:
            expected = "train_data_batch_1.npz .. 10 and val_data.npz, or Parquet files,"
            raise missing_data("imagenet32", expected, settings.path, "https://image-net.org/download-images.php")
        content = data_files.content_hash([(file.name, file) for file in (*train, *held_out)])
        reads = {"train": functools.partial(npz_blocks, train), "validation": functools.partial(npz_blocks, held_out)}
    return ArraySource("imagenet32", reads, 3072, 256, (32, 32, 3), content_hash=content, domain="image")


def npz_blocks(files: list[Path]) -> Iterator[Block]:
    """Yields one block of images per file."""
    for file in files:
        try:
            with file.open("rb") as archive, np.load(archive, allow_pickle=False) as fields:
                images = fields["data"]
        except Exception as error:  # a damaged archive raises almost anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"data.path: {file} is damaged ({reason}); download it again") from None
        if images.dtype != np.uint8 or images.shape[1:] != (3072,):
            raise ValueError(f"data.path: {file} holds {images.dtype} {images.shape}, not uint8 [N, 3072]")
        yield {"tokens": images}


def table_blocks(read: tables.ReadRows, image: Shape, labeled: bool = True) -> Iterator[Block]:
    """Pixels and, if `labeled`, labels of the rows of a table, whose images must have this shape."""
    rows = read()
    while batch := list(itertools.islice(rows, AT_ONCE)):
        pixels = np.empty((len(batch), *image), np.uint8)
        labels = np.zeros(len(batch), np.int32)
        for number, (place, row) in enumerate(batch):
            try:
                array = np.asarray(row.get("image", row.get("img")))
            except ValueError:  # of lists of different lengths
                array = np.empty(0)
            if array.dtype != np.uint8 or array.shape not in (image, image[:2]):
                raise ValueError(f"data.path: {place} holds {array.dtype} {array.shape}, not an image uint8 {image}")
            pixels[number] = array.reshape(image)
            if labeled and type(row.get("label")) is not int:
                raise ValueError(f"data.path: {place} has no number as its label; download the file again")
            labels[number] = row["label"] if labeled else 0
        tokens = pixels.transpose(0, 3, 1, 2).reshape(len(batch), -1)
        yield {"tokens": tokens, "label": labels} if labeled else {"tokens": tokens}


def table_images(settings: DataSettings, image: Shape) -> dict[str, LabeledImages]:
    """Images and labels of each split of Parquet files or of the hub in memory; none where there are no such files."""
    parts = {}
    reads, _ = tables.split_rows(settings)
    if reads and not {"train", "test"} <= reads.keys():
        raise ValueError(f"data.path: {settings.path!r} holds {', '.join(reads)}; pass a folder with train and test")
    for split, read in reads.items():
        blocks = list(table_blocks(read, image))
        parts[split] = tuple(np.concatenate([block[name] for block in blocks]) for name in ("tokens", "label"))
    return parts


def labeled_image_source(
    name: str, parts: Mapping[str, LabeledImages], image: Shape, labels: int, settings: DataSettings
) -> ArraySource:
    """Source of labeled images in memory, with the last `data.validation_images` of train for validation.

    With `data.validation_images` = 0 the validation split is the test split.
    Raises: ValueError when no training image is left, or for a label outside the classes.
    """
    (images, classes), held_out = parts["train"], settings.validation_images
    if held_out >= len(images):
        raise ValueError(
            f"data.validation_images: {held_out} leaves none of {len(images)} training images; pass fewer, or 0"
        )
    for _, targets in parts.values():
        if targets.min() < 0 or targets.max() >= labels:
            outside = f"a label {targets.max()}, outside 0 .. {labels - 1}"
            raise ValueError(f"data.path: {name} holds {outside}; download it again")
    count = len(images) - held_out
    blocks = {split: {"tokens": tokens, "label": targets} for split, (tokens, targets) in parts.items()}
    blocks["train"] = {"tokens": images[:count], "label": classes[:count]}
    blocks["validation"] = {"tokens": images[count:], "label": classes[count:]} if held_out else blocks["test"]
    reads = {split: functools.partial(iter, [blocks[split]]) for split in splits.NAMES}
    return ArraySource(name, reads, image[0] * image[1] * image[2], 256, image, labels, domain="image")


def pack_pixel_pairs(tokens: Integer[np.ndarray, "N L"]) -> Int16[np.ndarray, "N M"]:
    """Packs the three bytes of each pixel into two tokens 0 .. 4095 of 12 bits, the super-tokens of MDM-Prime.

    Rows remain plane by plane: all high halves, then all low halves.
    """
    red, green, blue = np.moveaxis(np.asarray(tokens).reshape(len(tokens), 3, -1).astype(np.int32), 1, 0)
    number = (red << 16) | (green << 8) | blue
    return np.concatenate([number >> 12, number & 4095], axis=1).astype(np.int16)


def unpack_pixel_pairs(pairs: Integer[np.ndarray, "N M"]) -> Int32[np.ndarray, "N L"]:
    """Inverse of `pack_pixel_pairs`."""
    high, low = np.split(np.asarray(pairs).astype(np.int32), 2, axis=1)
    number = (high << 12) | low
    return np.concatenate([number >> 16, (number >> 8) & 255, number & 255], axis=1)


def as_pixel_pairs(source: ArraySource) -> ArraySource:
    """The same source with two tokens per pixel instead of three."""

    def pack(start: Callable[[], Iterator[Block]]) -> Iterator[Block]:
        return (block | {"tokens": pack_pixel_pairs(block["tokens"])} for block in start())

    assert source.image is not None
    height, width, _ = source.image
    return dataclasses.replace(
        source,
        name=f"{source.name}_pairs",
        splits={split: functools.partial(pack, start) for split, start in source.splits.items()},
        length=2 * height * width,
        vocab_size=4096,
        image=(height, width, 2),
    )
