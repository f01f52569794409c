"""Readers of plain text, JSON lines, CSV, Parquet and Arrow files, plain or compressed."""

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

COMPRESSED = (".xz", ".gz", ".bz2", ".zip")
WHOLE_FILE_HASH_LIMIT = 2 * 1024**3
"""Content above this many bytes is hashed by names, sizes and the first and last MiB of each file."""


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


def open_text(path: Path) -> io.TextIOWrapper:
    """Opens a UTF-8 text file (line ends kept, byte-order mark dropped); .xz, .gz, .bz2 and .zip on the fly."""
    if path.suffix == ".xz":
        stream = lzma.open(path)
    elif path.suffix == ".gz":
        stream = gzip.open(path)
    elif path.suffix == ".bz2":
        stream = bz2.open(path)
    elif path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        stream = archive.open(archive.namelist()[0])
    else:
        stream = open(path, "rb")
    return io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")


def read_text(path: Path) -> str:
    """Content of a text file; see `open_text`."""
    with open_text(path) as stream:
        return stream.read()


def kind(path: Path) -> str:
    """Suffix of the file without that of its compression (".jsonl" for "a.jsonl.xz")."""
    name = path.name
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def find(folder: Path, names: Sequence[str]) -> Path | None:
    """First of `names` in the folder, plain or compressed; None when there is none."""
    for name in names:
        for suffix in ("", *COMPRESSED):
            if (folder / (name + suffix)).is_file():
                return folder / (name + suffix)
    return None


def lines(path: Path) -> Iterator[str]:
    """Yields lines with their line end, normalized to a single newline."""
    with open_text(path) as stream:
        for line in stream:
            yield line.rstrip("\r\n") + "\n" if line.endswith(("\n", "\r")) else line


def records(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yields rows of a .jsonl, .csv (with a header), .parquet or .arrow file.

    Raises: ValueError naming file and line of a row that is not a JSON object.
    """
    layout = kind(path)
    if layout == ".csv":
        with open_text(path) as stream:
            yield from csv.DictReader(stream)
    elif layout in (".parquet", ".arrow"):
        for batch in _arrow_batches(path):
            yield from batch.to_pylist()
    else:
        for number, line in enumerate(lines(path), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"data.path: line {number} of {path} is not JSON ({error.msg})") from None
            if not isinstance(record, dict):
                raise ValueError(f"data.path: line {number} of {path} is not a JSON object")
            yield record


def _arrow_batches(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    if kind(path) == ".parquet":
        yield from pyarrow.parquet.ParquetFile(path).iter_batches()
        return
    with pyarrow.memory_map(str(path)) as stream:
        try:
            yield from pyarrow.ipc.open_stream(stream)
        except pyarrow.ArrowInvalid:  # the file format rather than the stream format
            stream.seek(0)
            reader = pyarrow.ipc.open_file(stream)
            for index in range(reader.num_record_batches):
                yield reader.get_batch(index)


def field_of(record: Mapping[str, Any], fields: Sequence[str], path: Path) -> str:
    """Text of the first of `fields` that the record has; lists of paragraphs are joined by newlines.

    Raises: ValueError naming file and fields when the record has none of them.
    """
    for name in fields:
        value = record.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, list):
            return "\n".join(value)
    raise ValueError(f"data.path: a row of {path} has no text field; expected {' or '.join(fields)}")


def column(path: Path, fields: Sequence[str]) -> list[Any]:
    """Values of the first of `fields` that a table has; other columns of Parquet files are not read.

    Raises: ValueError naming the file when it has none of them, or is damaged.
    """
    if kind(path) != ".parquet":
        rows = list(records(path))
        name = next((name for name in fields if rows and name in rows[0]), None)
        if name is None:
            raise ValueError(f"data.path: {path} has no column {' or '.join(fields)}")
        return [row.get(name) for row in rows]
    return [value for (value,) in parquet_rows(path, (fields,))]


def parquet_rows(path: Path, columns: Sequence[Sequence[str]]) -> Iterator[tuple[Any, ...]]:
    """Yields rows of a Parquet file: for each of `columns` the value of the first name that the file has.

    Raises: ValueError naming the file when it has none of them, or is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [next((name for name in choices if name in file.schema_arrow.names), None) for choices in columns]
        if None in names:
            raise ValueError(f"data.path: {path} has no column {' or '.join(columns[names.index(None)])}")
        for batch in file.iter_batches(batch_size=1024, columns=names):
            yield from zip(*(batch.column(name).to_pylist() for name in names), strict=True)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"data.path: {path} is damaged or not a Parquet file ({reason}); download it again") from None


def tfds_builder(folder: Path, name: str) -> Any:
    """TFDS builder of the data set `name`, prepared in the folder as ArrayRecord, which needs no TensorFlow.

    Raises: ValueError when it is in another format.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    if builder.info.file_format is None or builder.info.file_format.value != "array_record":
        raise ValueError(f"data.path: {folder} is not ArrayRecord; prepare {name} with file_format=array_record")
    return builder


def count_records(path: Path) -> int:
    """Number of rows that `records` yields; 1 for plain text."""
    layout = kind(path)
    if layout == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(path).metadata.num_rows
    if layout == ".arrow":
        return sum(batch.num_rows for batch in _arrow_batches(path))
    if layout == ".jsonl":
        return sum(1 for line in lines(path) if line.strip())
    return 1


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
        total.update(f"{name}\0{size}\0{file_hash.hexdigest()}\n".encode())
    return total.hexdigest()
