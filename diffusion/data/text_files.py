"""Any text of a user: files and folders of text, plain or compressed, and the texts of a column of tables."""

import functools
import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from diffusion.data import data_files, readers, tables
from diffusion.data.pieces import Document, parts_of
from diffusion.data.settings import DataSettings
from diffusion.data.splits import NAMES, md5_number, shares, split_of
from diffusion.data.types import Source

# What separates documents; a line of white space is blank.
SEPARATORS = {"paragraph": re.compile(r"\n[ \t\r]*\n\s*"), "line": re.compile(r"\r?\n")}


class TextFile(NamedTuple):
    """A file of text: its relative name, and its number of characters."""

    name: str
    path: Path
    characters: int


Named = tuple[str, Document]
"""A name and a document."""


def text_files(settings: DataSettings) -> Source:
    """UTF-8 text of a file, or of a folder at any depth, plain or compressed; omits hidden files and what is not text.

    `data.document` is the unit of a document: "file", "paragraph" (separated by blank lines) or "line".
    Three files or more are split by file: 5 % each for validation and test, by the md5 of the relative path.
    One or two files are split within the text: with "file" at 90 % and 95 %, at the next blank line or else line end;
    with paragraphs or lines by the md5 of each document, so that a repeated document cannot leak.

    With `data.field` the documents are the texts of this field of JSON lines, CSV, TSV, Parquet or Arrow files, or of a
    data set of the hub; see `table_texts`.
    """
    if settings.field:
        return table_texts(settings)
    root = Path(settings.path).expanduser()
    if not settings.path or not root.exists():
        reason = f"{settings.path!r} does not exist" if settings.path else "text_files needs it"
        raise ValueError(f"data.path: {reason}; pass --config.data.path=FILE_OR_FOLDER")
    files, skipped = [], []
    for name, path in data_files.named_files(root):
        file = inspected(name, path)
        if file is None:
            skipped.append(path)
        elif file.characters:
            files.append(file)
    if skipped:
        table = next((path for path in skipped if data_files.kind(path) in tables.FORMATS), None)
        remedy = f"; name the column of {table} by --config.data.field=NAME" if table else ""
        if not files and table:
            raise ValueError(f"data.path: {table} is a table{remedy}")
        message = f"data.path: {len(skipped)} files of {root} are not UTF-8 text and are left out{remedy}"
        warnings.warn(message, stacklevel=2)
    if not files:
        raise ValueError(f"data.path: {settings.path!r} holds no UTF-8 text; pass a file or folder with text")
    files.sort(key=lambda file: md5_number(file.name))
    return streamed("text_files", divided(files, settings.document))


def inspected(name: str, path: Path) -> TextFile | None:
    """A file of text, with no characters where it is blank; None where it is not UTF-8 text."""
    characters, blank = 0, True
    try:
        for number, part in enumerate(readers.text_parts(path)):
            if number == 0 and "\0" in part[:8192]:  # a large binary file is not read to its end
                return None
            characters += len(part)
            blank = blank and not part.strip()
    except UnicodeDecodeError:
        return None
    return TextFile(name, path, 0 if blank else characters)


Read = Callable[[], Iterator[Named]]


def divided(files: Sequence[TextFile], unit: str) -> dict[str, Read]:
    """Readers of the documents of each split, with their names; see `text_files`."""
    if len(files) >= 3:
        return {split: functools.partial(documents, part, unit) for split, part in shares(files).items()}
    if unit == "file":
        files = sorted(files)
        borders = [0, *map(functools.partial(border, files), (0.90, 0.95)), sum(file.characters for file in files)]
        return {
            split: functools.partial(between, split, files, *ends)
            for split, ends in zip(NAMES, itertools.pairwise(borders), strict=True)
        }
    return {split: functools.partial(of_split, files, unit, split) for split in NAMES}


def documents(files: Iterable[TextFile], unit: str) -> Iterator[Named]:
    """Yields the documents of files."""
    for file in files:
        if unit == "file":
            yield file.name, document(readers.text_parts(file.path))
        else:
            yield from cut(file.name, readers.text_parts(file.path), unit)


def document(parts: Iterator[str]) -> Document:
    """The text of parts where it is short, or else the parts."""
    first, second = next(parts, ""), next(parts, "")
    return itertools.chain([first, second], parts) if second else first


def cut(name: str, text: Iterable[str], unit: str) -> Iterator[tuple[str, str]]:
    """Yields the paragraphs or lines of a text that are not blank, with their numbers in its name."""
    separator, rest, start = SEPARATORS[unit], "", 0

    def found() -> Iterator[str]:
        nonlocal rest, start
        for part in text:
            # No separator begins before the white space at the end, unless it ends there.
            searched, rest, start = len(rest.rstrip()), rest + part, 0
            for match in separator.finditer(rest, searched):
                if match.end() == len(rest):
                    break
                yield rest[start : match.start()]
                start = match.end()
            rest = rest[start:]
        yield from separator.split(rest)

    return ((f"{name}:{number}", part) for number, part in enumerate(found()) if part.strip())


def of_split(files: Iterable[TextFile], unit: str, split: str) -> Iterator[tuple[str, str]]:
    """Yields those documents whose md5 is in a split."""
    return (
        (name, text)
        for file in files
        for name, text in cut(file.name, readers.text_parts(file.path), unit)
        if split_of(text) == split
    )


def border(files: Iterable[TextFile], share: float) -> int:
    """The character after the first blank line, line end or space from a share of the text of files on."""
    total = sum(file.characters for file in files)
    near, slack = int(share * total), max(1, total // 100)
    window = "".join(characters(files, near, near + slack))
    return near + next((window.find(mark) + len(mark) for mark in ("\n\n", "\n", " ") if mark in window), 0)


def characters(files: Iterable[TextFile], start: int, stop: int) -> Iterator[str]:
    """Yields the characters from `start` to `stop` of the text of files, one after the other."""
    for part in itertools.chain.from_iterable(readers.text_parts(file.path) for file in files):
        if start < len(part) and stop > 0:
            yield part[max(start, 0) : stop]
        start, stop = start - len(part), stop - len(part)
        if stop <= 0:
            return


def between(split: str, files: Iterable[TextFile], start: int, stop: int) -> Iterator[Named]:
    """Yields the characters from `start` to `stop` as one document, unless there are none."""
    if start < stop:
        yield split, document(characters(files, start, stop))


def table_texts(settings: DataSettings) -> Source:
    """The texts of `data.field` of all rows of tables, or of the splits of a data set of the hub (`data.path=hf://`).

    Rows are in the split that their file or folder names (train, validation, test), if any does, and else in that of
    the md5 of their text.
    """
    root = Path(settings.path).expanduser()
    if settings.path.startswith(tables.HUB):
        reads, content = tables.split_rows(settings)
        groups = {split: functools.partial(texts_of, read, settings.field) for split, read in reads.items()}
    else:
        files = [(name, path) for name, path in data_files.named_files(root) if data_files.kind(path) in tables.FORMATS]
        if not settings.path or not files:
            known = ", ".join(tables.FORMATS)
            raise ValueError(f"data.path: no table in {settings.path!r} ({known}), whose data.field could be read")
        content = data_files.content_hash(files)
        groups = {}
        for (_, path), split in zip(files, tables.file_splits([name for name, _ in files]), strict=True):
            groups.setdefault(split or "train", []).append(path)
        rows = {split: functools.partial(tables.rows, *paths) for split, paths in groups.items()}
        groups = {split: functools.partial(texts_of, read, settings.field) for split, read in rows.items()}
    if groups.keys() == {"train"}:
        groups = {split: functools.partial(with_md5, groups["train"], split) for split in NAMES}
    groups = {split: read for split, read in groups.items() if split in NAMES}
    return Source("text_files", groups, f"{content}-{settings.field}-{settings.document}")


def texts_of(read: tables.ReadRows, field: str) -> Iterator[str]:
    """Yields the text of a field of each row that is not blank."""
    texts = (readers.text_of(row, (field,), place) for place, row in read())
    return (text for text in texts if text.strip())


def with_md5(read: Callable[[], Iterator[str]], split: str) -> Iterator[str]:
    """Yields the texts whose md5 is in a split."""
    return (text for text in read() if split_of(text) == split)


def streamed(name: str, splits: dict[str, Read]) -> Source:
    """Source of documents that are read when they are needed; omits empty splits."""
    content, found = hashlib.sha256(), {}
    for split, read in splits.items():
        for key, text in read():
            total = hashlib.sha256()
            for part in parts_of(text):
                total.update(part.encode())
            content.update(os.fsencode(f"{split}/{key}\0{total.hexdigest()}\n"))
            found[split] = True
    reads = {split: functools.partial(texts, splits[split]) for split in found}
    return Source(name, reads, content.hexdigest())


def texts(read: Read) -> Iterator[Document]:
    """Yields documents without their names."""
    return (text for _, text in read())
