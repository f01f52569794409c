"""Files of GenEval (Ghosh et al., arXiv 2310.11513): prompts, and trees of images with one folder for each prompt.

A tree holds NNNNN/metadata.jsonl, the line of the prompt with number NNNNN, and NNNNN/samples/0000.png, 0001.png, ...
Trees that the published scripts write, with names of five digits and grid.png beside the samples, are read as well.
"""

import io
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffusion.metrics.geneval import COLORS, OPPOSITES, TASKS
from diffusion.storage import atomic_write, path_of

# The classes of COCO in the order of their labels 0 .. 79, three of them with other names than COCO's.
# fmt: off
CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on

Metadata = dict[str, Any]


class PromptImages(NamedTuple):
    """The images of a prompt in a tree."""

    number: int
    metadata: Metadata
    files: tuple[Path, ...]


def read_prompts(path: str | Path) -> list[Metadata]:
    """Return the metadata of GenEval's prompts, one JSON object a line.

    Raises:
      ValueError: naming the first line that is not metadata of a known task with known classes, colors and relations.
    """
    return [
        checked(parsed(line, where), where)
        for line, where in _lines(path_of(path), "generation metadata of GenEval, one JSON object a line")
    ]


def read_texts(path: str | Path) -> list[Metadata]:
    """Return {"tag": "", "prompt": line} for each line of a text file: prompts for rewards alone.

    Raises:
      ValueError: if the file is missing, or has no text.
    """
    return [{"tag": "", "prompt": line} for line, _ in _lines(path_of(path), "one prompt a line")]


def _lines(path: Path, content: str) -> list[tuple[str, str]]:
    if not path.is_file():
        raise ValueError(f"prompts: '{path}' is not a file; pass a file with {content}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"prompts: '{path}' is not text in UTF-8; pass a file with {content}") from None
    numbered = enumerate(text.split("\n"), 1)
    lines = [(line.strip(), f"prompts: line {number} of '{path}'") for number, line in numbered if line.strip()]
    if not lines:
        raise ValueError(f"prompts: '{path}' is empty; pass a file with {content}")
    return lines


def parsed(line: str, where: str) -> Metadata:
    """Return the JSON object of a line; `where` begins the error.

    Raises:
      ValueError: if it is none.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # also of a number of too many digits
        value = None
    if not isinstance(value, dict):
        raise ValueError(f'{where} is not a JSON object; write {{"tag": ..., "include": [...], "prompt": ...}}')
    return value


def checked(metadata: Metadata, where: str) -> Metadata:
    """Return the metadata of a prompt unchanged; `where` begins the error.

    Raises:
      ValueError: for the first field that GenEval's rules cannot use.
    """

    def refuse(problem: str) -> None:
        raise ValueError(f"{where} {problem}")

    if metadata.get("tag") not in TASKS:
        refuse(f"has the unknown tag {metadata.get('tag')!r}; use one of {', '.join(TASKS)}")
    if not isinstance(metadata.get("prompt"), str) or not metadata["prompt"].strip():
        refuse('has no prompt; add "prompt": TEXT')
    groups = {name: metadata.get(name, []) for name in ("include", "exclude")}
    for name, entries in groups.items():
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            refuse(f'has a field "{name}" that is no list of objects; use [{{"class": ..., "count": ...}}]')
        for each in entries:
            if not each.get("class"):
                refuse(f'has an entry of "{name}" without a name; add "class": NAME')
            if each["class"] not in CLASSES:
                refuse(f"has the unknown class {each['class']!r}; use one of the 80 classes of GenEval")
            if type(each.get("count")) is not int or each["count"] < 1:
                refuse(f'has no count of {each["class"]!r}; add "count" with an integer from 1 on')
    if not groups["include"]:
        refuse('includes nothing; add an entry to "include"')
    for index, each in enumerate(groups["include"]):
        if each.get("color", COLORS[0]) not in COLORS:
            refuse(f"has the unknown color {each['color']!r}; use one of {', '.join(COLORS)}")
        if "position" in each:
            _check_position(each["position"], index, refuse)
    return metadata


def _check_position(position: Any, index: int, refuse: Any) -> None:
    if not isinstance(position, list) or len(position) != 2 or position[0] not in tuple(OPPOSITES):
        refuse(f"has the position {position!r}; use [relation, index], with a relation of {', '.join(OPPOSITES)}")
    if type(position[1]) is not int or not 0 <= position[1] < index:
        refuse(
            f'has a position of entry {index} relative to entry {position[1]} of "include"; name an earlier entry, '
            "counted from 0"
        )


def image_folder(root: str | Path, number: int) -> Path:
    """Return the folder of the prompt with this number, from 0."""
    return path_of(root) / f"{number:05d}"


def sample_file(folder: str | Path, index: int) -> Path:
    """Return the file of an image of the prompt of this folder, from 0."""
    return path_of(folder) / "samples" / f"{index:04d}.png"


def write_metadata(folder: str | Path, metadata: Metadata) -> None:
    """Write metadata.jsonl of a prompt's folder, which is made."""
    atomic_write(path_of(folder) / "metadata.jsonl", (json.dumps(metadata) + "\n").encode())


def write_image(path: str | Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write a PNG that is either complete or not there, in a folder that is made."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="png")
    atomic_write(path_of(path), stream.getvalue())


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """Return the pixels of an image file in RGB.

    Raises:
      ValueError: if the file is missing or damaged.
    """
    return np.asarray(_opened(path_of(path), lambda image: image.convert("RGB")))


def check_image(path: str | Path) -> None:
    """Raise ValueError if a file is no whole PNG, by its checksums and without its pixels."""
    _opened(path_of(path), lambda image: image.verify())


def _opened(path: Path, use: Any) -> Any:
    from PIL import Image

    try:
        with path.open("rb") as stream, Image.open(stream) as image:
            return use(image)
    except Exception:  # damaged files raise errors of many types
        raise ValueError(f"images: '{path}' is not a whole PNG; make the image again") from None


def read_tree(root: str | Path, prompts: Sequence[Metadata] | None = None) -> list[PromptImages]:
    """Return the prompts of a tree of images in the order of their numbers.

    With `prompts`, the tree must hold each of them under its index, and no others. Folders whose names are no numbers,
    and files beside the samples, are left out. Prompts without a tag are those of `read_texts`.

    Raises:
      ValueError: for a folder without metadata or without images, and for one that does not match its prompt.
    """
    root = path_of(root)
    if not root.is_dir():
        raise ValueError(f"images: '{root}' is not a folder; pass one that holds 00000/samples/0000.png")
    folders = sorted((each for each in root.iterdir() if each.name.isdecimal() and each.is_dir()), key=_number)
    if not folders:
        raise ValueError(f"images: '{root}' has no folder of a prompt; pass one that holds 00000/samples/0000.png")
    found = [_read_folder(folder) for folder in folders]
    for before, after in pairwise(found):
        if before.number == after.number:
            raise ValueError(f"images: '{root}' has two folders with number {after.number}; move one away")
    if prompts is not None:
        _match(root, found, prompts)
    return found


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdecimal() else 10**9, path.name)


def _read_folder(folder: Path) -> PromptImages:
    file = folder / "metadata.jsonl"
    if not file.is_file():
        raise ValueError(f"images: '{folder}' has no metadata.jsonl; write the prompt's line of the prompt file there")
    where = f"images: '{file}'"
    metadata = {"tag": ""} | parsed(file.read_text(encoding="utf-8", errors="replace").strip(), where)
    if metadata["tag"]:
        checked(metadata, where)
    elif not isinstance(metadata.get("prompt"), str):
        raise ValueError(f'{where} has no prompt; add "prompt": TEXT')
    files = tuple(sorted((folder / "samples").glob("*.png"), key=_number))
    if not files:
        raise ValueError(f"images: '{folder / 'samples'}' has no PNG; make the images of this prompt, or move it away")
    return PromptImages(int(folder.name), metadata, files)


def _match(root: Path, found: list[PromptImages], prompts: Sequence[Metadata]) -> None:
    by_number = {each.number: each for each in found}
    missing = next((number for number in range(len(prompts)) if number not in by_number), None)
    if missing is not None:
        raise ValueError(f"images: '{root}' has no folder {missing:05d} of prompt {missing}; make its images")
    for number, each in by_number.items():
        folder = image_folder(root, number)
        if number >= len(prompts):
            raise ValueError(f"images: '{folder}' has no prompt, there are {len(prompts)}; move it away")
        if each.metadata != prompts[number]:
            raise ValueError(
                f"images: '{folder}' was made for the prompt {each.metadata['prompt']!r}, but prompt {number} is "
                f"{prompts[number]['prompt']!r} or its metadata differ; pass the prompt file of these images"
            )
