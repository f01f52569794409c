"""Files of data: which of a folder they are, what their names say, and a hash of their content."""

import fnmatch
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

COMPRESSED = (".xz", ".gz", ".bz2", ".zip", ".zst")
WHOLE_FILE_HASH_LIMIT = 2 * 1024**3
"""Content above this many bytes is hashed by names, sizes and the first and last MiB of each file."""


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
