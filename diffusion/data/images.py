"""Image sets from local files: MNIST, CIFAR-10 and downsampled ImageNet, every pixel value one token.

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
from diffusion.data.types import ArraySource, missing

Read = Callable[[], bytes]
Labelled = tuple[UInt8[np.ndarray, "N L"], Int[np.ndarray, " N"]]

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# What a pickled numpy array names, under the module names of numpy 1 and 2; nothing else may be loaded.
PICKLED = {
    "_reconstruct": multiarray._reconstruct,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_frombuffer": numeric._frombuffer,  # pyright: ignore[reportAttributeAccessIssue]  (its stub lacks it)
}
PICKLED_MODULES = re.compile(r"numpy|numpy\._?core\.(multiarray|numeric)")


def mnist(settings: DataSettings) -> ArraySource:
    """MNIST (28 x 28, gray, ten digits) from its idx files, plain or gzipped, with its official test split."""
    folder = Path(settings.path).expanduser()
    parts = {}
    for split, names in MNIST_FILES.items():
        dotted = [name.replace("-idx", ".idx") for name in names]
        pairs = zip(names, dotted, strict=True) if settings.path else ()
        files = [file for pair in pairs if (file := readers.find(folder, pair)) is not None]
        if len(files) < len(names):
            expected = "train- and t10k- images-idx3-ubyte and labels-idx1-ubyte (.gz or plain)"
            raise missing("mnist", expected, settings.path, "https://yann.lecun.com/exdb/mnist or any mirror of it")
        images, labels = (idx_array(file) for file in files)
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise ValueError(f"data.path: {files[0]} and its labels have shapes {images.shape} and {labels.shape}")
        parts[split] = (images.reshape(len(images), -1), labels.astype(np.int32))
    return labeled("mnist", parts, (28, 28, 1), 10, settings)


def idx_array(path: Path) -> UInt8[np.ndarray, "..."]:
    """An array of unsigned bytes in the idx format: 0, 0, 8, rank, big-endian sizes, values.

    Raises: ValueError when the file is no such array or is cut off.
    """
    opened = gzip.open(path) if path.suffix == ".gz" else open(path, "rb")
    with opened as stream:
        data = stream.read()
    if data[:3] != b"\0\0\x08" or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"data.path: {path} is no idx file of bytes; get it anew")
    shape = np.frombuffer(data, ">u4", data[3], offset=4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise ValueError(f"data.path: {path} holds {values.size} of {shape.prod()} bytes; get it anew")
    return values.reshape(shape)


def labeled(
    name: str, parts: Mapping[str, Labelled], image: tuple[int, int, int], labels: int, settings: DataSettings
) -> ArraySource:
    """A source in memory; the last `data.validation_images` of train are validation, or with 0 the test split is."""
    (images, classes), held_out = parts["train"], settings.validation_images
    if held_out >= len(images):
        raise ValueError(
            f"data.validation_images: {held_out} leaves none of {len(images)} training images; pass fewer, or 0"
        )
    for _, given in parts.values():
        if given.min() < 0 or given.max() >= labels:
            raise ValueError(f"data.path: {name} holds a label {given.max()}, outside 0 .. {labels - 1}; get it anew")
    kept = len(images) - held_out
    blocks = {split: PackedBlock(tokens, None, targets) for split, (tokens, targets) in parts.items()}
    blocks["train"] = PackedBlock(images[:kept], None, classes[:kept])
    blocks["validation"] = PackedBlock(images[kept:], None, classes[kept:]) if held_out else blocks["test"]
    splits = {split: lambda block=blocks[split]: iter([block]) for split in ("train", "validation", "test")}
    return ArraySource(name, splits, image[0] * image[1] * image[2], 256, image, labels, domain="image")


def cifar10(settings: DataSettings) -> ArraySource:
    """CIFAR-10 (32 x 32, three colors, ten classes): python or binary version, as a folder or a .tar(.gz).

    Raises: ValueError when files are missing or damaged.
    """
    files = members(settings.path, re.compile(r"(data_batch_\d+|test_batch)(\.bin)?"))
    batches = {
        "train": sorted(name for name in files if name.startswith("data_batch")),
        "test": [name for name in files if name.startswith("test_batch")],
    }
    if not all(batches.values()):
        expected = "data_batch_1 .. 5 and test_batch (python or .bin), or the .tar.gz of them,"
        raise missing("cifar10", expected, settings.path, "https://www.cs.toronto.edu/~kriz/cifar.html")
    parts = {}
    for split, names in batches.items():
        # A folder that holds both versions is read once.
        names = [name for name in names if name.endswith(".bin")] or names
        read = [
            binary_batch(name, files[name]()) if ".bin" in name else python_batch(name, files[name]()) for name in names
        ]
        parts[split] = tuple(np.concatenate(arrays) for arrays in zip(*read, strict=True))
    return labeled("cifar10", parts, (32, 32, 3), 10, settings)


def members(path: str, pattern: re.Pattern[str]) -> dict[str, Read]:
    """Files whose name matches, by name: of a folder at any depth, or of a tar archive (read whole, not unpacked)."""
    place = Path(path).expanduser()
    if not path or not place.exists():
        return {}
    if place.is_dir():
        found = {file.name: file.read_bytes for file in sorted(place.rglob("*")) if pattern.fullmatch(file.name)}
        archives = [] if found else sorted(place.glob("*.tar*"))
        return members(str(archives[0]), pattern) if archives else found
    with tarfile.open(place) as archive:
        contents = {
            Path(member.name).name: stream.read()
            for member in archive
            if pattern.fullmatch(Path(member.name).name) and member.isfile() and (stream := archive.extractfile(member))
        }
    return {name: lambda data=data: data for name, data in contents.items()}


class ArrayUnpickler(pickle.Unpickler):
    """Loads numpy arrays, lists and dictionaries, and refuses everything that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if PICKLED_MODULES.fullmatch(module) and name in PICKLED:
            return PICKLED[name]
        if (module, name) == ("_codecs", "encode"):  # how bytes are written by older pickle protocols
            return lambda text, encoding="utf-8": text.encode(encoding)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no image set needs")


def python_batch(name: str, data: bytes, pixels: int = 3072) -> Labelled:
    """Images and labels of one pickled dictionary with "data" and "labels".

    Raises: ValueError when it is damaged, or names anything but arrays.
    """
    try:
        fields = ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        fields = {key.decode() if isinstance(key, bytes) else key: value for key, value in fields.items()}
        images, labels = np.asarray(fields["data"]), np.asarray(fields["labels"])
    except Exception as error:  # a damaged pickle raises almost anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"data.path: {name} is damaged or no image batch ({reason}); get it anew") from None
    return checked(name, images, labels, pixels)


def binary_batch(name: str, data: bytes, pixels: int = 3072) -> Labelled:
    """Images and labels of CIFAR-10's binary version: records of one label byte and the pixels."""
    if not data or len(data) % (pixels + 1):
        raise ValueError(f"data.path: {name} has {len(data)} bytes, no multiple of {pixels + 1}; get it anew")
    records = np.frombuffer(data, np.uint8).reshape(-1, pixels + 1)
    return checked(name, records[:, 1:], records[:, 0], pixels)


def checked(name: str, images: np.ndarray, labels: np.ndarray, pixels: int) -> Labelled:
    """The same, or ValueError when shape or type is not that of images with a label each."""
    if images.dtype != np.uint8 or images.shape[1:] != (pixels,) or labels.shape != (len(images),):
        raise ValueError(
            f"data.path: {name} holds {images.dtype} {images.shape} and labels {labels.shape}, not uint8 [N, {pixels}] "
            "and [N]; get it anew"
        )
    return images, labels.astype(np.int32)


def imagenet32(settings: DataSettings) -> ArraySource:
    """Downsampled ImageNet at 32 x 32 (Chrabaszcz et al., arXiv 1707.08819): pickles or .npz, at any depth.

    Its 50,000 validation images are both the validation and the test split.
    Raises: ValueError when files are missing or damaged.
    """
    place = Path(settings.path).expanduser()
    pattern = re.compile(r"(train_data_batch_(\d+)|val_data)(\.npz)?")
    found = [file for file in place.rglob("*") if pattern.fullmatch(file.name)] if settings.path else []
    # By number, so that batch 10 follows batch 9; a folder that holds both versions is read once.
    by_stem = {file.name.removesuffix(".npz"): file for file in sorted(found)}
    train = [by_stem[stem] for stem in sorted(by_stem, key=lambda stem: (len(stem), stem)) if stem != "val_data"]
    if not train or "val_data" not in by_stem:
        expected = "train_data_batch_1 .. 10 and val_data (pickles or .npz)"
        raise missing("imagenet32", expected, settings.path, "https://image-net.org/download-images.php")
    held_out = [by_stem["val_data"]]
    splits = {"train": lambda: batches_of(train), "validation": lambda: batches_of(held_out)}
    content = readers.content_hash([(file.name, file) for file in (*train, *held_out)])
    return ArraySource("imagenet32", splits, 3072, 256, (32, 32, 3), content_hash=content, domain="image")


def batches_of(files: list[Path]) -> Iterator[PackedBlock]:
    """One block of images a file."""
    for file in files:
        if file.suffix != ".npz":
            yield PackedBlock(python_batch(file.name, file.read_bytes())[0], None)
            continue
        try:
            with file.open("rb") as archive, np.load(archive, allow_pickle=False) as fields:
                images, labels = fields["data"], fields["labels"]
        except Exception as error:  # a damaged archive raises almost anything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"data.path: {file} is damaged ({reason}); get it anew") from None
        yield PackedBlock(checked(file.name, images, labels, 3072)[0], None)


def pixel_pairs(tokens: Integer[np.ndarray, "N L"]) -> Int16[np.ndarray, "N M"]:
    """Every pixel's three bytes as one number of 24 bits, written as two tokens 0 .. 4095: MDM-Prime's super-tokens.

    Rows stay plane by plane: all high halves, then all low ones.
    """
    red, green, blue = np.moveaxis(np.asarray(tokens).reshape(len(tokens), 3, -1).astype(np.int32), 1, 0)
    number = (red << 16) | (green << 8) | blue
    return np.concatenate([number >> 12, number & 4095], axis=1).astype(np.int16)


def pixels_of_pairs(pairs: Integer[np.ndarray, "N M"]) -> Int32[np.ndarray, "N L"]:
    """The bytes that `pixel_pairs` packed."""
    high, low = np.split(np.asarray(pairs).astype(np.int32), 2, axis=1)
    number = (high << 12) | low
    return np.concatenate([number >> 16, (number >> 8) & 255, number & 255], axis=1)


def in_pairs(source: ArraySource) -> ArraySource:
    """The same pictures with two tokens a pixel."""

    def converted(start):
        return lambda: (block._replace(tokens=pixel_pairs(block.tokens)) for block in start())

    assert source.image is not None
    height, width, _ = source.image
    return dataclasses.replace(
        source,
        name=f"{source.name}_pairs",
        splits={split: converted(start) for split, start in source.splits.items()},
        length=2 * height * width,
        vocab_size=4096,
        image=(height, width, 2),
    )
