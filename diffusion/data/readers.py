"""Readers of text, JSON lines and separated values, plain or compressed."""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PART = 2**20
"""Bytes of a text that are read at once."""

Row = tuple[str, Mapping[str, Any]]
"""The place of a row, for messages, and its fields."""


@contextlib.contextmanager
def readable(path: str) -> Iterator[None]:
    """Converts errors of damaged files and unreadable paths to a ValueError about `data.path`."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path: a file in {path!r} is not UTF-8 text ({error.reason})") from None
    except (lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise ValueError(f"data.path: a compressed file in {path!r} is damaged ({error})") from None
    except PermissionError as error:
        raise ValueError(f"data.path: no permission to read {error.filename!r}; pass a readable path") from None
    except OSError as error:
        if error.errno is not None:  # Zstandard's have no number
            raise
        raise ValueError(f"data.path: a compressed file in {path!r} is damaged ({error})") from None


def open_bytes(path: Path) -> Any:
    """Opens a file, plain or compressed; of a zip archive its first file."""
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        try:
            return archive.open(archive.namelist()[0])
        except (IndexError, RuntimeError):  # it is empty or encrypted, or compressed in an unknown way
            raise zipfile.BadZipFile("no file in it can be read") from None
    opened = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open, ".zst": open_zstandard}
    return opened.get(path.suffix, open)(path, "rb")


def open_zstandard(path: Path, mode: str) -> Any:
    """Opens a file that Zstandard compressed, by the package that also reads Parquet."""
    import pyarrow

    # pyarrow's stream has no lines of its own.
    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), mode), "zstd"))


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """Opens a UTF-8 text file, plain or compressed: only a newline ends a line, and a byte-order mark is dropped.

    Raises: ValueError naming a file in another encoding, while it is read.
    """
    with io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="\n") as stream:
        try:
            yield stream
        except UnicodeDecodeError as error:
            raise ValueError(f"data.path: {path} is not UTF-8 text ({error.reason}); convert it to UTF-8") from None


def text_parts(path: Path) -> Iterator[str]:
    """Yields the text of a UTF-8 file, plain or compressed, in parts, without a byte-order mark."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with open_bytes(path) as stream:
        while content := stream.read(PART):
            yield decoder.decode(content)
    decoder.decode(b"", final=True)


def read_text(path: Path) -> str:
    """Content of a text file; see `open_text`."""
    with open_text(path) as stream:
        return stream.read()


def whole_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file with their line end; see `open_text`.

    Raises: ValueError naming the line that is not UTF-8.
    """
    with open_bytes(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                found = f"line {number} of {path} is not UTF-8 text ({error.reason})"
                raise ValueError(f"data.path: {found}; convert the file") from None


def lines(*paths: Path) -> Iterator[str]:
    """Yields the lines of all files without their line end, a newline or a carriage return and a newline."""
    for path in paths:
        for line in whole_lines(path):
            yield line.removesuffix("\n").removesuffix("\r") if line.endswith("\n") else line


def json_rows(path: Path) -> Iterator[Row]:
    """Yields the objects of JSON lines; a library that infers types would turn texts that are dates into dates."""
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"data.path: line {number} of {path} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"data.path: line {number} of {path} is not a JSON object")
        yield f"line {number} of {path}", row


def cells(path: Path, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yields the place and the cells of each row of separated values, where quotes must be balanced and doubled.

    Quotes of a file of tabs may be text; see `is_quoted`.
    Raises: ValueError naming the line of a row that is damaged, or has not as many cells as the first.
    """
    quoted = delimiter != "\t" or is_quoted(path)
    table = quoted_cells(path, delimiter) if quoted else enumerate((line.split("\t") for line in lines(path)), 1)
    width = None
    for number, row in table:
        if row in ([], [""]):
            continue
        width = width or len(row)
        if len(row) != width:
            found = f"{len(row)} fields, where the first line has {width}"
            raise ValueError(f"data.path: line {number} of {path} is damaged ({found})")
        yield f"line {number} of {path}", row


def quoted_cells(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of the line and the cells of each row, with the quotes of CSV."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(whole_lines(path), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"data.path: line {reader.line_num} of {path} is damaged ({error})") from None


def is_quoted(path: Path) -> bool:
    """Whether tabs separate values that are quoted as in CSV, as opposed to quotes that are text.

    Quotes that are text would be unbalanced somewhere, or span a tab or a different number of values.
    """
    try:
        table = (row for _, row in quoted_cells(path, "\t") if row)
        width = len(next(table, []))
        return all(len(row) == width and "\t" not in "".join(row) for row in table)
    except ValueError:
        return False


def separated_rows(path: Path, delimiter: str = ",", header: bool = True) -> Iterator[Row]:
    """Yields the rows of a file of separated values; see `cells`.

    The first line names the columns or, without a `header`, their numbers from 1 do.
    """
    table = cells(path, delimiter)
    names = next(table, ("", []))[1] if header else []
    for place, row in table:
        yield place, dict(zip(names or [str(column) for column in range(1, len(row) + 1)], row, strict=True))


def text_of(row: Mapping[str, Any], fields: Sequence[str], place: str) -> str:
    """Text of the first of `fields` that the row has; lists of paragraphs are joined by newlines.

    Raises: ValueError naming the place of a row that has none of them, or holds something other than text.
    """
    value = next((row[name] for name in fields if row.get(name) is not None), None)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"data.path: {place} has no text field; expected {' or '.join(fields)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"data.path: {place} is not Unicode text ({error.reason})") from None
    return value
