"""Image sets from local files: MNIST, CIFAR-10 and downsampled ImageNet, with one token per pixel value.

Rows are channel-major, (color, row, column), as CIFAR-10 and downsampled ImageNet are stored.
"""

import dataclasses
import gzip
import io
import pickle
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int16, Int32, Integer, UInt8
from numpy._core import multiarray, numeric

from diffusion.data import readers
from diffusion.data.packing import PackedBlock
from diffusion.data.settings import DataSettings
from diffusion.data.types import ArraySource, missing_data

Read = Callable[[], bytes]
LabeledImages = tuple[UInt8[np.ndarray, "N L"], Int[np.ndarray, " N"]]

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# Globals that a pickled array refers to, under the module names of NumPy 1 and 2; nothing else may be loaded.
PICKLE_GLOBALS = {
    "_reconstruct": multiarray._reconstruct,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_frombuffer": numeric._frombuffer,  # pyright: ignore[reportAttributeAccessIssue]  (its stub lacks it)
}
PICKLE_MODULES = re.compile(r"numpy|numpy\._?core\.(multiarray|numeric)")


def mnist(settings: DataSettings) -> ArraySource:
    """MNIST (28 x 28, gray, ten digits) from its idx files, plain or gzipped, with its official test split.

    Raises: ValueError when files are missing or damaged.
    """
    folder = Path(settings.path).expanduser()
    parts = {}
    for split, names in MNIST_FILES.items():
        alternatives = [name.replace("-idx", ".idx") for name in names]
        spellings = zip(names, alternatives, strict=True) if settings.path else ()
        files = [file for spelling in spellings if (file := readers.find(folder, spelling)) is not None]
        if len(files) < len(names):
            expected = "train- and t10k- images-idx3-ubyte and labels-idx1-ubyte (.gz or plain)"
            raise missing_data("mnist", expected, settings.path, "https://yann.lecun.com/exdb/mnist or a mirror of it")
        images, labels = (idx_array(file) for file in files)
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"data.path: {files[0]} and its labels have shapes {images.shape} and {labels.shape}")
        parts[split] = (images.reshape(len(images), -1), labels.astype(np.int32))
    return labeled_image_source("mnist", parts, (28, 28, 1), 10, settings)


def idx_array(path: Path) -> UInt8[np.ndarray, "..."]:
    """Reads an array of unsigned bytes in the idx format: 0, 0, 8, rank, big-endian sizes, values.

    Raises: ValueError when the file does not have this format or is truncated.
    """
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
        data = stream.read()
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"data.path: {path} is not an idx file of bytes; download it again")
    shape = np.frombuffer(data, ">u4", data[3], offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise ValueError(f"data.path: {path} holds {values.size} of {shape.prod()} bytes; download it again")
    return values.reshape(shape)


def labeled_image_source(
    name: str, parts: Mapping[str, LabeledImages], image: tuple[int, int, int], labels: int, settings: DataSettings
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
            raise ValueError(
                f"data.path: {name} holds a label {targets.max()}, outside 0 .. {labels - 1}; download it again"
            )
    count = len(images) - held_out
    blocks = {split: PackedBlock(tokens, None, targets) for split, (tokens, targets) in parts.items()}
    blocks["train"] = PackedBlock(images[:count], None, classes[:count])
    blocks["validation"] = PackedBlock(images[count:], None, classes[count:]) if held_out else blocks["test"]
    splits = {split: lambda block=blocks[split]: iter([block]) for split in ("train", "validation", "test")}
    return ArraySource(name, splits, image[0] * image[1] * image[2], 256, image, labels, domain="image")


def cifar10(settings: DataSettings) -> ArraySource:
    """CIFAR-10 (32 x 32, three colors, ten classes) in its Python or binary version, as a folder or a .tar(.gz).

    Raises: ValueError when files are missing or damaged.
    """
    files = matching_files(settings.path, re.compile(r"(data_batch_\d+|test_batch)(\.bin)?"))
    batches = {
        "train": sorted(name for name in files if name.startswith("data_batch")),
        "test": [name for name in files if name.startswith("test_batch")],
    }
    if not all(batches.values()):
        expected = "data_batch_1 .. 5 and test_batch (python or .bin), or the .tar.gz of them,"
        raise missing_data("cifar10", expected, settings.path, "https://www.cs.toronto.edu/~kriz/cifar.html")
    parts = {}
    for split, names in batches.items():
        # A folder that holds both versions is read once.
        names = [name for name in names if name.endswith(".bin")] or names
        records = [
            binary_batch(name, files[name]()) if ".bin" in name else python_batch(name, files[name]()) for name in names
        ]
        parts[split] = tuple(np.concatenate(arrays) for arrays in zip(*records, strict=True))
    return labeled_image_source("cifar10", parts, (32, 32, 3), 10, settings)


def matching_files(path: str, pattern: re.Pattern[str]) -> dict[str, Read]:
    """Files by name whose name matches, of a folder at any depth or of a tar archive (read whole, not unpacked)."""
    place = Path(path).expanduser()
    if not path or not place.exists():
        return {}
    if place.is_dir():
        files = {file.name: file.read_bytes for file in sorted(place.rglob("*")) if pattern.fullmatch(file.name)}
        archives = [] if files else sorted(place.glob("*.tar*"))
        return matching_files(str(archives[0]), pattern) if archives else files
    with tarfile.open(place) as archive:
        contents = {
            Path(member.name).name: stream.read()
            for member in archive
            if pattern.fullmatch(Path(member.name).name) and member.isfile() and (stream := archive.extractfile(member))
        }
    return {name: lambda data=data: data for name, data in contents.items()}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays, lists and dictionaries that refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if PICKLE_MODULES.fullmatch(module) and name in PICKLE_GLOBALS:
            return PICKLE_GLOBALS[name]
        if (module, name) == ("_codecs", "encode"):  # bytes in older pickle protocols
            return lambda text, encoding="utf-8": text.encode(encoding)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no image set needs")


def python_batch(name: str, data: bytes, pixels: int = 3072) -> LabeledImages:
    """Images and labels of a pickled dictionary with "data" and "labels".

    Raises: ValueError when it is damaged, or names anything but arrays.
    """
    try:
        fields = ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in fields.items()}
        images, labels = np.asarray(fields["data"]), np.asarray(fields["labels"])
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"data.path: {name} is damaged or not an image batch ({reason}); download it again") from None
    return validate_images(name, images, labels, pixels)


def binary_batch(name: str, data: bytes, pixels: int = 3072) -> LabeledImages:
    """Images and labels of CIFAR-10's binary version, whose records are a label byte and the pixels.

    Raises: ValueError when the size is not a multiple of a record's.
    """
    if not data or len(data) % (pixels + 1):
        raise ValueError(f"data.path: {name} has {len(data)} bytes, not a multiple of {pixels + 1}; download it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, pixels + 1)
    return validate_images(name, records[:, 1:], records[:, 0], pixels)


def validate_images(name: str, images: np.ndarray, labels: np.ndarray, pixels: int) -> LabeledImages:
    """Returns the images and their labels as int32.

    Raises: ValueError when shapes or dtypes are not those of images with one label each.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (pixels,) or labels.shape != (len(images),):
        raise ValueError(
            f"data.path: {name} holds {images.dtype} {images.shape} and labels {labels.shape}, not uint8 [N, {pixels}] "
            "and [N]; download it again"
        )
    return images, labels.astype(np.int32)


def imagenet32(settings: DataSettings) -> ArraySource:
    """Downsampled ImageNet at 32 x 32 (Chrabaszcz et al., arXiv 1707.08819), from pickles or .npz at any depth.

    Its 50,000 validation images are both the validation and the test split.
    Raises: ValueError when files are missing or damaged.
    """
    place = Path(settings.path).expanduser()
    pattern = re.compile(r"(train_data_batch_(\d+)|val_data)(\.npz)?")
    files = [file for file in place.rglob("*") if pattern.fullmatch(file.name)] if settings.path else []
    # By number, so that batch 10 follows batch 9; a folder that holds both versions is read once.
    by_stem = {file.name.removesuffix(".npz"): file for file in sorted(files)}
    train = [by_stem[stem] for stem in sorted(by_stem, key=lambda stem: (len(stem), stem)) if stem != "val_data"]
    if not train or "val_data" not in by_stem:
        expected = "train_data_batch_1 .. 10 and val_data (pickles or .npz)"
        raise missing_data("imagenet32", expected, settings.path, "https://image-net.org/download-images.php")
    held_out = [by_stem["val_data"]]
    splits = {"train": lambda: image_blocks(train), "validation": lambda: image_blocks(held_out)}
    content = readers.content_hash([(file.name, file) for file in (*train, *held_out)])
    return ArraySource("imagenet32", splits, 3072, 256, (32, 32, 3), content_hash=content, domain="image")


def image_blocks(files: list[Path]) -> Iterator[PackedBlock]:
    """Yields one block of images per file.

    Raises: ValueError naming a damaged file.
    """
    for file in files:
        if file.suffix != ".npz":
            yield PackedBlock(python_batch(file.name, file.read_bytes())[0], None)
            continue
        try:
            with file.open("rb") as archive, np.load(archive, allow_pickle=False) as fields:
                images, labels = fields["data"], fields["labels"]
        except Exception as error:  # a damaged archive raises almost anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"data.path: {file} is damaged ({reason}); download it again") from None
        yield PackedBlock(validate_images(file.name, images, labels, 3072)[0], None)


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

    def pack(start):
        return lambda: (block._replace(tokens=pack_pixel_pairs(block.tokens)) for block in start())

    assert source.image is not None
    height, width, _ = source.image
    return dataclasses.replace(
        source,
        name=f"{source.name}_pairs",
        splits={split: pack(start) for split, start in source.splits.items()},
        length=2 * height * width,
        vocab_size=4096,
        image=(height, width, 2),
    )
