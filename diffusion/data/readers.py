"""Readers of text, JSON lines and separated values, plain or compressed, and a hash of their content."""

import bz2
import codecs
import contextlib
import csv
import fnmatch
import gzip
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

COMPRESSED = (".xz", ".gz", ".bz2", ".zip", ".zst")
PART = 2**20
"""Bytes of a text that are read at once."""
WHOLE_FILE_HASH_LIMIT = 2 * 1024**3
"""Content above this many bytes is hashed by names, sizes and the first and last MiB of each file."""

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


def kind(path: Path) -> str:
    """Suffix of the file in lower case, without that of its compression (".jsonl" for "a.jsonl.xz")."""
    return (Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix).lower()


def plain_name(path: Path) -> str:
    """Name of the file without the suffix of its compression."""
    return path.stem if path.suffix in COMPRESSED else path.name


def paths_of(path: str) -> list[str]:
    """The paths of the files of "A,B", or the path alone where a file has that name."""
    if "," not in path or Path(path).expanduser().exists():
        return [path]
    return [part.strip() for part in path.split(",")]


def find(folder: str | Path, names: Sequence[str]) -> Path | None:
    """First of `names` in the folder, plain or compressed; None when there is none, or the path is empty."""
    place = Path(folder).expanduser()
    candidates = (place / (name + suffix) for name in names for suffix in ("", *COMPRESSED))
    return next((file for file in candidates if file.is_file()), None) if folder else None


def own_files(path: str, kinds: Sequence[str]) -> list[tuple[str, Path]]:
    """A file whatever its name, or the files of some kinds below a folder, with their names relative to it.

    Hidden files are no data; files of other kinds are counted in a warning.
    Raises: ValueError for a path that does not exist, or holds no such file.
    """
    root = Path(path).expanduser()
    if not path or not root.exists():
        reason = f"{path!r} does not exist" if path else "it is empty"
        raise ValueError(f"data.path: {reason}; pass --config.data.path=FILE_OR_FOLDER")
    named = named_files(root)
    if root.is_file():
        return named
    found = [(name, file) for name, file in named if kind(file) in kinds]
    if not found:
        raise ValueError(f"data.path: {path!r} holds no file of {', '.join(kinds)} (plain or compressed); pass one")
    if others := [name for name, file in named if kind(file) not in kinds]:
        more = " and others" if len(others) > 3 else ""
        warnings.warn(
            f"data.path: {len(others)} files of other kinds in {path!r} are left out ({', '.join(others[:3])}{more})",
            stacklevel=3,
        )
    return found


def fail(error: OSError) -> None:
    """Raise the error."""
    raise error


def files_below(path: str, pattern: str = "*") -> list[Path]:
    """Files of a folder at any depth, sorted; none when there is no such folder, or the path is empty.

    Links to folders are followed, each folder once, so that a link to a folder above ends. A folder that cannot be read
    raises its OSError: data would be left out silently.
    """
    root = Path(path).expanduser()
    found, visited = [], {os.path.realpath(root)}
    for place, folders, names in os.walk(root, onerror=fail, followlinks=True) if path and root.is_dir() else ():
        targets = {os.path.realpath(os.path.join(place, name)): name for name in sorted(folders, reverse=True)}
        folders[:] = [name for target, name in targets.items() if target not in visited]
        visited |= targets.keys()
        found += [Path(place, name) for name in names if fnmatch.fnmatchcase(name, pattern)]
    return sorted(file for file in found if file.is_file())


def visible_below(path: str) -> list[Path]:
    """Paths relative to the folder of its files at any depth that are not hidden, nor below a hidden folder, sorted."""
    names = [file.relative_to(Path(path).expanduser()) for file in files_below(path)]
    return [name for name in names if not any(part.startswith(".") for part in name.parts)]


def named_files(root: Path) -> list[tuple[str, Path]]:
    """A file with its name, or the files of a folder as in `visible_below`, with their names relative to it."""
    if root.is_file():
        return [(root.name, root)]
    return [(name.as_posix(), root / name) for name in visible_below(str(root))]


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


def content_hash(paths: Sequence[tuple[str, Path]]) -> str:
    """sha256 over (name, content) of every file, sampled beyond WHOLE_FILE_HASH_LIMIT."""
    sampled = sum(path.stat().st_size for _, path in paths) > WHOLE_FILE_HASH_LIMIT
    total = hashlib.sha256(b"sampled" if sampled else b"whole")
    block = 1024**2
    for name, path in paths:
        size = path.stat().st_size
        file_hash = hashlib.sha256()
        with open(path, "rb") as stream:
            if sampled and size > 2 * block:
                file_hash.update(stream.read(block))
                stream.seek(size - block)
            while chunk := stream.read(block):
                file_hash.update(chunk)
        total.update(os.fsencode(f"{name}\0{size}\0{file_hash.hexdigest()}\n"))
    return total.hexdigest()
