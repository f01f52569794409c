"""Text of local files: Python's standard library, text8, and the 27-symbol form of Wikipedia."""

import dataclasses
import hashlib
import itertools
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from diffusion.data import data_files, datasets, readers
from diffusion.data.settings import DataSettings
from diffusion.data.splits import NAMES, md5_number, split_of
from diffusion.data.types import Source, missing_data

STDLIB_EXCLUDED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
# Where the splits end.
TEXT8 = (90_000_000, 95_000_000, 100_000_000)
TEXT8_PREFIX = (6_190_042, 6_533_933, 6_877_825)
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def in_memory(name: str, splits: Mapping[str, list[tuple[str, str]]], separated: bool = True) -> Source:
    """Source of lists of (document name, text) in memory; omits empty splits."""
    content = hashlib.sha256()
    for split, items in splits.items():
        for key, text in items:
            content.update(os.fsencode(f"{split}/{key}\0{hashlib.sha256(text.encode()).hexdigest()}\n"))
    documents = {split: lambda items=items: (text for _, text in items) for split, items in splits.items() if items}
    return Source(name, documents, content.hexdigest(), separated)


def python_stdlib(settings: DataSettings) -> Source:
    """Source files of the standard library of the running Python (or of `data.path`), without its tests.

    One document per file, in the order of the md5 of its relative path, by which files are also split (`split_of`).
    Files that are not UTF-8 and build records of the machine are omitted.
    """
    root = Path(settings.path or sysconfig.get_paths()["stdlib"]).expanduser()
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in NAMES}
    for name in sorted(_python_files(root), key=lambda name: md5_number(name.as_posix())):
        if name.name.startswith("_sysconfigdata"):
            continue
        if text := _text_or_none(root / name):
            splits[split_of(name.as_posix())].append((name.as_posix(), text))
    if not splits["train"]:
        raise missing_data("python_stdlib", "Python files", str(root), "install the standard library with its sources")
    return in_memory("python_stdlib", splits)


def _python_files(root: Path) -> Iterator[Path]:
    """Paths relative to `root`, also of no folder; those that are left out, such as of packages, are not entered.

    A folder that cannot be read raises its OSError.
    """
    for folder, inner, names in os.walk(root, onerror=data_files.fail) if root.is_dir() else ():
        inner[:] = [name for name in inner if name not in STDLIB_EXCLUDED]
        yield from (Path(folder, name).relative_to(root) for name in names if name.endswith(".py"))


def _text_or_none(path: Path) -> str | None:
    with open(path, "rb") as stream:
        head = stream.read(8192)  # a large binary file is not read to its end
        if b"\0" in head:
            return None
        try:
            return (head + stream.read()).decode("utf-8-sig")
        except UnicodeDecodeError:
            return None


def one_text(
    settings: DataSettings, names: Sequence[str], ends: tuple[int, int, int], expected: str, where: str
) -> Source:
    """Source of one continuous text, cut at characters; `data.path` is the file or its folder."""
    name, place = settings.source, Path(settings.path).expanduser()
    file = place if settings.path and place.is_file() else data_files.find(settings.path, names)
    if file is None:
        raise missing_data(name, expected, settings.path, where)
    text = readers.read_text(file).rstrip("\n")
    if len(text) != ends[-1]:
        raise ValueError(f"data.path: {file} has {len(text)} characters, but {name} has {ends[-1]}; download it again")
    borders = zip(NAMES, itertools.pairwise((0, *ends)), strict=True)
    parts = {split: [(split, text[start:stop])] for split, (start, stop) in borders}
    return dataclasses.replace(in_memory(name, parts, separated=False), paper_split="test")


def text8(settings: DataSettings) -> Source:
    """text8 with its official splits of 90 M, 5 M and 5 M characters, each one text without EOS."""
    names, where = ("text8", "text8.txt"), "http://mattmahoney.net/dc/text8.zip"
    return one_text(settings, names, TEXT8, "text8 or text8.zip", where)


def text8_prefix(settings: DataSettings) -> Source:
    """First 6,877,825 characters of text8, split 90/5/5 %; not to be reported as text8."""
    names = ("text8_first_6877825.txt", "text8_prefix.txt")
    where = "create it with: head -c 6877825 text8 > text8_first_6877825.txt"
    return one_text(settings, names, TEXT8_PREFIX, f"{names[0]} or .txt.xz", where)


_LETTERS = bytes(byte if byte in b"abcdefghijklmnopqrstuvwxyz0123456789" else 32 for byte in range(256))


def symbols27(text: str) -> str:
    """Text over a-z and single spaces: lower case, digits spelled as words, everything else replaced by a space."""
    text = text.lower().encode("ascii", "replace").translate(_LETTERS).decode("ascii")
    for digit, word in enumerate(DIGITS):
        text = text.replace(str(digit), f" {word} ")
    return " ".join(text.split())


def enwiki2018(settings: DataSettings) -> Source:
    """English Wikipedia articles of early 2018 from {train,valid,test}.jsonl(.xz) with a "text" field.

    With `data.symbols27` each split is one text over a-z and space, with articles joined by a space.
    """
    source = datasets.texts(settings)
    if not settings.symbols27:
        return source
    joined = {split: " ".join(filter(None, map(symbols27, read()))) for split, read in source.documents.items()}
    splits = {split: [(split, text)] for split, text in joined.items()}
    return in_memory("enwiki2018_symbols27", splits, separated=False)
