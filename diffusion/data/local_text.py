"""Text of local files: Python's standard library, any text, text8, and the 27-symbol form of Wikipedia."""

import dataclasses
import hashlib
import itertools
import re
import sysconfig
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion.data import datasets, readers
from diffusion.data.settings import DataSettings
from diffusion.data.splits import NAMES, md5_number, shares, split_of
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
            content.update(f"{split}/{key}\0{hashlib.sha256(text.encode()).hexdigest()}\n".encode())
    documents = {split: lambda items=items: (text for _, text in items) for split, items in splits.items() if items}
    return Source(name, documents, content.hexdigest(), separated)


def python_stdlib(settings: DataSettings) -> Source:
    """Source files of the standard library of the running Python (or of `data.path`), without its tests.

    One document per file, in the order of the md5 of its relative path, by which files are also split (`split_of`).
    Files that are not UTF-8 and build records of the machine are omitted.
    """
    root = Path(settings.path or sysconfig.get_paths()["stdlib"]).expanduser()
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in NAMES}
    names = [path.relative_to(root) for path in root.rglob("*.py")] if root.is_dir() else []
    for name in sorted(names, key=lambda name: md5_number(name.as_posix())):
        if STDLIB_EXCLUDED & set(name.parts[:-1]) or name.name.startswith("_sysconfigdata"):
            continue
        if text := _text_or_none(root / name):
            splits[split_of(name.as_posix())].append((name.as_posix(), text))
    if not splits["train"]:
        raise missing_data("python_stdlib", "Python files", str(root), "install the standard library with its sources")
    return in_memory("python_stdlib", splits)


def text_files(settings: DataSettings) -> Source:
    """UTF-8 text of a file, or of a folder at any depth; omits hidden files and files that are not text.

    `data.document` is the unit of a document: "file", "paragraph" (separated by blank lines) or "line".
    Three files or more are split by file: 5 % each for validation and test, by the md5 of the relative path.
    One or two files are split within the text: with "file" at 90 % and 95 %, at the next blank line or else line end;
    with paragraphs or lines by the md5 of each document, so that a repeated document cannot leak.
    """
    root = Path(settings.path).expanduser()
    if not settings.path or not root.exists():
        reason = f"{settings.path!r} does not exist" if settings.path else "text_files needs it"
        raise ValueError(f"data.path: {reason}; pass --config.data.path=FILE_OR_FOLDER")
    files, skipped = [], 0
    folder, names = (root.parent, [Path(root.name)]) if root.is_file() else (root, readers.visible_below(settings.path))
    for name in names:
        text = _text_or_none(folder / name)
        if text is None:
            skipped += 1
        elif text.strip():
            files.append((name.as_posix(), text))
    if skipped:
        warnings.warn(f"data.path: {skipped} files of {root} are not UTF-8 text and are left out", stacklevel=2)
    if not files:
        raise ValueError(f"data.path: {settings.path!r} holds no UTF-8 text; pass a file or folder with text")
    files.sort(key=lambda item: md5_number(item[0]))
    if len(files) >= 3:
        splits = {split: _cut(part, settings.document) for split, part in shares(files).items()}
    elif settings.document == "file":
        splits = _contiguous("".join(text for _, text in sorted(files)))
    else:
        splits = {split: [] for split in NAMES}
        for name, text in _cut(files, settings.document):
            splits[split_of(text)].append((name, text))
    return in_memory("text_files", splits)


def _text_or_none(path: Path) -> str | None:
    with open(path, "rb") as stream:
        head = stream.read(8192)  # a large binary file is not read to its end
        if b"\0" in head:
            return None
        try:
            return (head + stream.read()).decode("utf-8-sig")
        except UnicodeDecodeError:
            return None


def _cut(files: list[tuple[str, str]], document: str) -> list[tuple[str, str]]:
    if document == "file":
        return files
    pattern = r"\n[ \t\r]*\n\s*" if document == "paragraph" else r"\r?\n"
    return [
        (f"{name}:{number}", part)
        for name, text in files
        for number, part in enumerate(re.split(pattern, text))
        if part.strip()
    ]


def _contiguous(text: str) -> dict[str, list[tuple[str, str]]]:
    borders = [0]
    for share in (0.90, 0.95):
        near, slack = int(share * len(text)), max(1, len(text) // 100)
        window = text[near : near + slack]
        offset = next((window.find(mark) + len(mark) for mark in ("\n\n", "\n", " ") if mark in window), 0)
        borders.append(near + offset)
    borders.append(len(text))
    parts = [text[start:stop] for start, stop in itertools.pairwise(borders)]
    return {split: [(split, part)] if part else [] for split, part in zip(NAMES, parts, strict=True)}


def one_text(
    settings: DataSettings, names: Sequence[str], ends: tuple[int, int, int], expected: str, where: str
) -> Source:
    """Source of one continuous text, cut at characters; `data.path` is the file or its folder."""
    name, place = settings.source, Path(settings.path).expanduser()
    file = place if settings.path and place.is_file() else readers.find(settings.path, names)
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
