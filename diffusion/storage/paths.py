"""Paths that users give: folders of this machine, and of object stores (`gs://`, `s3://`).

A path of an object store is a `pathlib.Path` whose methods ask the store, so that the code above reads and writes both
kinds alike.
"""

import contextlib
import functools
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path, PosixPath
from typing import Any

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}


@functools.cache
def filesystem(scheme: str) -> Any:
    """The client of a store, from fsspec; nothing is listed from memory, because other hosts write too."""
    import fsspec.config

    os.environ.setdefault("EPATH_USE_TF", "false")  # Orbax too goes by fsspec
    for name in ("gs", "gcs", "s3"):
        fsspec.config.conf.setdefault(name, {}).setdefault("use_listings_cache", False)
    return fsspec.filesystem(scheme)


class ObjectPath(PosixPath):
    """A path `gs://BUCKET/NAME` or `s3://BUCKET/NAME`; its folders exist as long as they hold objects."""

    def __str__(self) -> str:
        scheme, *names = self.parts or ("",)
        known = scheme.removesuffix(":") in PACKAGES and scheme.endswith(":")
        return f"{scheme}//{'/'.join(names)}" if known else super().__str__()

    def __fspath__(self) -> str:
        return str(self)

    @property
    def scheme(self) -> str:
        """gs or s3."""
        return self.parts[0].removesuffix(":")

    @property
    def store(self) -> Any:
        """The client of the store."""
        return filesystem(self.scheme)

    @property
    def key(self) -> str:
        """The name by which the client knows the object."""
        return "/".join(self.parts[1:])

    def at(self, key: str) -> "ObjectPath":
        """The path of another object of the same store."""
        return type(self)(f"{self.scheme}://{key}")

    def files(self) -> dict[str, dict]:
        """What the store says of each object below the folder, or of the object itself, by the rest of its key."""
        found = self.store.find(self.key, detail=True)
        return {key.lstrip("/").removeprefix(self.key): info for key, info in found.items() if not key.endswith("/")}

    def exists(self, **_: Any) -> bool:
        return self.store.exists(self.key)

    def is_file(self) -> bool:
        return self.store.isfile(self.key)

    def is_dir(self) -> bool:
        return self.store.isdir(self.key)

    def iterdir(self) -> Iterator["ObjectPath"]:
        keys = (key.strip("/") for key in self.store.ls(self.key, detail=False))
        yield from (self.at(key) for key in keys if key != self.key)

    def glob(self, pattern: str, **_: Any) -> Iterator["ObjectPath"]:
        yield from (self.at(key.strip("/")) for key in self.store.glob(f"{self.key}/{pattern}"))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: the first object makes the folder."""

    def open(self, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None):  # pyright: ignore[reportIncompatibleMethodOverride]
        """Open the object to read it, or to write it whole; raises ValueError for appending."""
        if "a" in mode or "+" in mode:
            raise ValueError(f"{self}: an object store cannot change a part of a file")
        text = {} if "b" in mode else {"encoding": encoding or "utf-8", "errors": errors, "newline": newline}
        return self.store.open(self.key, mode, **text)

    def read_bytes(self) -> bytes:
        return self.store.cat_file(self.key)

    def read_text(self, encoding: Any = None, errors: Any = None, **_: Any) -> str:
        return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding or "utf-8", errors).read()

    def write_bytes(self, data: Any) -> int:
        self.store.pipe_file(self.key, bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: Any = None, errors: Any = None, newline: Any = None) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def create(self, text: str) -> bool:
        """Write an object unless there is one, where the store can tell; returns whether it was written."""
        try:
            self.store.pipe_file(self.key, text.encode(), mode="create")
        except Exception as error:
            # Of S3 and of Google the error of the condition has no type of its own in all versions.
            if isinstance(error, FileExistsError) or "412" in str(error) or "precondition" in str(error).lower():
                return False
            raise
        return True

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self.store.rm_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: Any) -> Any:
        """Copy the object, or all objects of the folder, and delete them: no store moves them at once."""
        for name in self.files():
            self.store.cp_file(self.key + name, target.key + name)
        self.delete()
        return target

    replace = rename

    def delete(self) -> None:
        """Delete the object, or all objects of the folder, if there are any."""
        with contextlib.suppress(FileNotFoundError):
            self.store.rm(self.key, recursive=True)

    def absolute(self):
        return self

    expanduser = absolute

    def resolve(self, strict: bool = False):
        return self


def path_of(text: str | Path) -> Path:
    """The path that a user gave; one that is a path already stays as it is.

    Raises:
      ValueError: for an unknown scheme, no bucket, or a package that is missing.
    """
    if isinstance(text, Path):
        return text
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return Path(text)
    if scheme not in PACKAGES:
        raise ValueError(f"{text}: unknown scheme {scheme}://; pass a local path, {' or '.join(map(named, PACKAGES))}")
    if not rest.strip("/"):
        raise ValueError(f"{text}: names no bucket; pass {named(scheme)}BUCKET/FOLDER")
    if not importlib.util.find_spec(PACKAGES[scheme]):
        raise ValueError(f"{text}: needs the package {PACKAGES[scheme]}; pip install {PACKAGES[scheme]}")
    return ObjectPath(text)


def named(scheme: str) -> str:
    """The beginning of the paths of a scheme."""
    return f"{scheme}://"
