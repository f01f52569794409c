"""Content of the user's files: the hash that stands for a path in the id of a job.

Moving a folder renames no job, and a changed file renames the jobs that read it. A path that is not present, such as
that of a cluster's data while a laptop plans, has no hash; its own text stands for it, so that jobs which are planned
there keep their ids on the cluster only if the plan is passed along (`launch.py run --jobs=FILE`).

Hashes of large files are kept in the user's cache by path, size and time of change. Processes replace this record as a
whole, and what one of them loses is hashed again.
"""

import functools
import hashlib
import json
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from diffusion.data.data_files import paths_of, visible_below
from diffusion.data.settings import DataSettings
from diffusion.storage import fetched_text

REMEMBERED = 2**20  # bytes from which the hash of a file is kept; smaller files are read again
SHOWN = 2**30  # bytes from which hashing is announced


@functools.cache
def content_hash(path: str) -> str:
    """sha256 over relative name and content of a file, or of all files of a folder that are not hidden.

    Of "A,B" it is that of two files. It is empty for a path that is not present. A path is read once until `reread`.

    Raises:
      ValueError: for a file that cannot be read.
    """
    if len(parts := paths_of(path)) > 1:
        hashes = [content_hash(part) for part in parts]
        return hashlib.sha256("".join(hashes).encode()).hexdigest() if all(hashes) else ""
    path = fetched_text(path)
    root = Path(path).expanduser()
    if not path or not root.exists():
        return ""
    folder = root if root.is_dir() else root.parent
    try:
        visible = visible_below(path) if root.is_dir() else [Path(root.name)]
        hashes = file_hashes([folder / name for name in visible])
    except OSError as error:
        raise ValueError(f"data: {error.filename} cannot be read ({error.strerror}); allow it, or move it") from None
    lines = (f"{name.as_posix()}\0{each}\n" for name, each in zip(visible, hashes, strict=True))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def reread() -> None:
    """Look at all files again; to be called before a plan."""
    content_hash.cache_clear()
    fetched_text.cache_clear()


def file_hashes(files: list[Path]) -> list[str]:
    """sha256 of the content of each file, from the record where it has not changed since."""
    known, new, hashes = read_record(), {}, []
    states = [(str(file.resolve()), *size_and_time(file)) for file in files]
    unknown = sum(size for path, size, time in states if known.get(path, [])[:2] != [size, time])
    if unknown >= SHOWN:
        print(f"data: hashing {unknown / 2**30:.0f} GiB of files, once", file=sys.stderr)
    for file, (path, size, time) in zip(files, states, strict=True):
        entry = known.get(path, [])
        if entry[:2] != [size, time]:
            with file.open("rb") as stream:
                entry = [size, time, hashlib.file_digest(stream, "sha256").hexdigest()]
            if size >= REMEMBERED:
                new[path] = entry
        hashes.append(entry[2])
    if new:
        write_record(new)
    return hashes


def size_and_time(file: Path) -> tuple[int, int]:
    """Bytes, and time of the last change in nanoseconds."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns


def record_file() -> Path:
    """The record of hashes in the user's cache."""
    return DataSettings().cache / "contents.json"


def read_record() -> dict[str, list]:
    """{path: [size, time of change in ns, sha256]}; empty where there is no record that can be read."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        record = json.loads(record_file().read_text())
        return {path: entry for path, entry in record.items() if len(entry) == 3}
    return {}


def write_record(new: dict[str, list]) -> None:
    """Add entries to the record, which other processes may do at the same time; without a writable cache do nothing."""
    with suppress(OSError):
        record_file().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=record_file().parent, suffix=".partial", delete=False) as stream:
            json.dump(read_record() | new, stream)
        Path(stream.name).replace(record_file())
