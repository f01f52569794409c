"""A user's images: files of any size below a folder, whose sub-folders are classes, below those of splits if present.

An example is a square of `data.length` values: size x size of gray, or 3 x size x size of red, green and blue.
"""

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffusion.data import data_files, splits, tables
from diffusion.data.packing import Block
from diffusion.data.settings import DataSettings
from diffusion.data.tokenizers import digest
from diffusion.data.types import ArraySource

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
AT_ONCE = 256
SHOWN = 3  # files that a message names


class Place(NamedTuple):
    """An image by its path relative to the folder, the split whose folder it is in, and the folder of its class."""

    name: Path
    split: str  # "": no folder names one
    label: str  # "": none


class Listing(NamedTuple):
    """All images of a folder, their classes in order (none for a single folder), and the number of other files."""

    places: list[Place]
    classes: tuple[str, ...]
    others: int


def image_files(settings: DataSettings) -> ArraySource:
    """Images of a folder (SUFFIXES) at `data.length` and `data.resize`, in `data.vocab_size` levels per color.

    Folders train, validation and test are the splits where they exist; a missing one of the last two is the other.
    Otherwise 5 % of the contents each, and at least one, are validation and test, so that equal files share a split.
    Images follow one another in the order of the hash of their content, so that any first ones are a fair sample.
    Raises: ValueError naming what is wrong with the folder or a field.
    """
    shape, levels = square(settings), settings.vocab_size
    if not 2 <= levels <= 256:
        raise ValueError(f"data.vocab_size: image_files has 2 to 256 levels per color, not {levels}; pass 256")
    root, listing = Path(settings.path).expanduser(), listed(settings.path)
    if listing.others:
        found = f"{listing.others} files of {root} are not images ({', '.join(SUFFIXES)}) and are left out"
        warnings.warn(f"data.path: {found}", stacklevel=2)
    hashes = {place: content_of(root / place.name) for place in listing.places}
    content = digest(settings.resize, *(f"{place.name.as_posix()}\0{hashes[place]}" for place in listing.places))
    parts = divided(listing.places, hashes, settings.path)
    reads = {split: partial(blocks, settings, listing.classes, split, places) for split, places in parts.items()}
    labels = listing.classes
    return ArraySource(
        "image_files", reads, settings.length, levels, shape, len(labels), content, "image", label_names=labels
    )


def square(data: Any) -> tuple[int, int, int]:
    """Height, width and colors of `data.length` values: a square is gray, and three squares are RGB.

    Raises: ValueError for another length.
    """
    for colors in (1, 3):
        size = math.isqrt(data.length // colors)
        if size and colors * size * size == data.length:
            return size, size, colors
    near = max(1, round(math.sqrt(data.length)))
    raise ValueError(
        f"data.length: {data.length} is neither size x size (gray) nor 3 x size x size (RGB); pass {near**2} for "
        f"{near} x {near} in gray, or {3 * near**2} in RGB"
    )


def class_count(path: str) -> int:
    """Number of classes of the images in a folder.

    Raises: ValueError where there are none.
    """
    classes = listed(path).classes
    if not classes:
        raise ValueError(
            f"data.path: the images in {path!r} have no classes, which a classifier learns; sort them into folders, "
            "or pass --config.judge.name=none"
        )
    return len(classes)


def listed(path: str) -> Listing:
    """Images at any depth of a folder, without hidden files; the first folder below that of a split is the class.

    Raises: ValueError for a folder without images, or for images that have no class, or no split, where others do.
    """
    names = data_files.visible_below(path)
    images = [name for name in names if name.suffix.lower() in SUFFIXES]
    if not images:
        found = f"{path!r} holds no images ({', '.join(SUFFIXES)})" if path else "empty"
        raise ValueError(f"data.path: {found}; pass --config.data.path=FOLDER of images")
    first = [tables.FILE_SPLITS.get(name.parts[0].lower(), "") if len(name.parts) > 1 else "" for name in images]
    if set(first) == {"", "train"}:  # a class beside others, such as cars
        first = [""] * len(images)
    places = []
    for name, split in zip(images, first, strict=True):
        folders = name.parts[1 if split else 0 : -1]
        places.append(Place(name, split, folders[0] if folders else ""))
    found = sorted(set(first))
    if "" in found[:-1] or (found != [""] and "train" not in found):
        where = next((f"{place.name} is in none of them" for place in places if not place.split), "there is no train")
        raise ValueError(f"data.path: {path!r} has folders of the splits {', '.join(filter(None, found))}, but {where}")
    classes = tuple(sorted({place.label for place in places}))
    known = {place.label for place in places if place.split in ("", "train")}
    for place in places if len(classes) > 1 else ():
        if not place.label or place.label not in known:
            reason = f"the class {place.label}, which train lacks" if place.label else "no folder of a class"
            raise ValueError(f"data.path: {place.name} of {path!r} is in {reason}, as others are; move it")
    return Listing(places, classes if len(classes) > 1 else (), len(names) - len(images))


def content_of(file: Path) -> str:
    """sha256 of the content of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def divided(places: Sequence[Place], hashes: Mapping[Place, str], path: str) -> dict[str, list[Place]]:
    """Images of each split in the order of their hashes: of its folder, or else of its share of the contents.

    Images of validation or test that training has as well cause a warning.
    Raises: ValueError for fewer than three contents.
    """
    contents = sorted(set(hashes.values()))
    ordered = sorted(places, key=lambda place: (hashes[place], place))
    if {place.split for place in places} <= {"", "train"}:
        if len(contents) < 3:
            raise ValueError(f"data.path: {path!r} holds {len(contents)} different images; pass at least 3")
        split_of = {content: split for split, part in splits.shares(contents).items() for content in part}
        return {split: [place for place in ordered if split_of[hashes[place]] == split] for split in splits.NAMES}
    parts = {split: [place for place in ordered if place.split == split] for split in splits.NAMES}
    learned = {hashes[place] for place in parts["train"]}
    if shared := sum(hashes[place] in learned for part in ("validation", "test") for place in parts[part]):
        warnings.warn(f"data.path: {shared} images of validation and test are in train, too", stacklevel=3)
    parts["validation"], parts["test"] = parts["validation"] or parts["test"], parts["test"] or parts["validation"]
    return parts


def blocks(settings: DataSettings, classes: Sequence[str], split: str, places: Sequence[Place]) -> Iterator[Block]:
    """Yields pixels, and labels where there are classes.

    Raises: ValueError at the end with the number and the names of the images that cannot be read.
    """
    root, shape, damaged = Path(settings.path).expanduser(), square(settings), []

    def read(place: Place) -> UInt8[np.ndarray, " L"] | None:
        try:
            return pixels(root / place.name, shape, settings.vocab_size, settings.resize)
        except Exception as error:  # a damaged image raises almost anything
            damaged.append(f"{place.name} ({reason_of(error)})")
            return None

    with ThreadPoolExecutor() as threads:
        for start in range(0, len(places), AT_ONCE):
            part = places[start : start + AT_ONCE]
            found = [image for image in threads.map(read, part) if image is not None]
            if damaged:
                continue  # the others are read to name all damaged ones
            block = {"tokens": np.stack(found)}
            labels = {"label": np.array([classes.index(place.label) for place in part], np.int32)} if classes else {}
            yield block | labels
    if damaged:
        names = ", ".join(sorted(damaged)[:SHOWN]) + (", ..." if len(damaged) > SHOWN else "")
        images = "1 image" if len(damaged) == 1 else f"{len(damaged)} images"
        raise ValueError(f"data.path: {images} of {root} ({split}) cannot be read: {names}; replace or remove them")


def reason_of(error: Exception) -> str:
    """Why an image cannot be read, in one line."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error).split("\n")[0] or type(error).__name__


def pixels(file: Path, shape: tuple[int, int, int], levels: int, resize: str) -> UInt8[np.ndarray, " L"]:
    """Pixels of an image, channel by channel, turned as its EXIF orientation says, on white where it is transparent.

    Of an animation it is the first frame; 16 bits per color become 8, and other colors gray (ITU-R 601) or RGB.
    """
    from PIL import Image, ImageOps

    height, width, colors = shape
    with Image.open(file) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        if image.mode in ("I", "F"):
            raise ValueError("32 bits per pixel")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = resized(image.convert("L" if colors == 1 else "RGB"), (width, height), resize)
    planes = np.asarray(image).reshape(height, width, colors).transpose(2, 0, 1).reshape(-1)
    return np.round(planes * ((levels - 1) / 255)).astype(np.uint8)


def resized(image: Any, size: tuple[int, int], resize: str) -> Any:
    """An image at a size (width, height), by bicubic interpolation with antialiasing; see `data.resize`."""
    from PIL import Image, ImageOps

    if resize == "cover":
        return ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    if resize == "stretch":
        return image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    if min(left, top) < 0:
        raise ValueError(f"{image.width} x {image.height} pixels, too small for data.resize=crop")
    return image.crop((left, top, left + size[0], top + size[1]))
