"""Files that are whole or not there, on this machine and in object stores, and what stays on this machine."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffusion.storage.paths import ObjectPath


def user_cache() -> Path:
    """The folder of this library in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusion"


def scratch(path: Path) -> Path:
    """The folder of this machine for what belongs to a path but cannot lie in a store; local paths are their own."""
    return user_cache() / "remote" / Path(*path.parts) if isinstance(path, ObjectPath) else path


def cache_of(workdir: Path) -> Path:
    """The cache of a work directory, which lies on this machine: packed data are read at random places."""
    return scratch(workdir) / "cache"


def for_terminal(path: Path) -> str:
    """A path for the terminal, relative to the working directory where it is local."""
    return str(path) if isinstance(path, ObjectPath) else os.path.relpath(path)


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a local file to write; it becomes `path` as a whole at the end, or disappears after an error.

    Its name is its own, so that several writers do not meet, and ends as that of `path`, by which libraries choose a
    format.
    """
    place = scratch(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{path.stem}.{secrets.token_hex(8)}.partial{path.suffix}")
    try:
        yield partial
        if isinstance(path, ObjectPath):
            path.store.put_file(str(partial), path.key)
        else:
            partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file such that it is either complete or unchanged, also beside other writers of the same file."""
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    with written(path) as partial:
        partial.write_bytes(data)


def remove(path: Path) -> None:
    """Delete a folder with all that is in it, if it is there."""
    if isinstance(path, ObjectPath):
        path.delete()
    else:
        shutil.rmtree(path, ignore_errors=True)


class Appender:
    """Lines that are added to a file; a store, which cannot append, gets the whole file at `put` and `close`."""

    def __init__(self, path: Path):
        self.path, self.file, self.text = path, None, ""
        if isinstance(path, ObjectPath):
            self.text = path.read_text() if path.exists() else ""
        else:
            self.file = path.open("a", encoding="utf-8")

    def write(self, text: str) -> None:
        """Add a text."""
        if self.file:
            self.file.write(text)
            self.file.flush()
        else:
            self.text += text

    def put(self) -> None:
        """Let others see what was written."""
        if not self.file:
            self.path.write_text(self.text)

    def close(self) -> None:
        """Put and close the file."""
        self.put()
        if self.file:
            self.file.close()
