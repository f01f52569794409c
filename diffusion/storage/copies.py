"""Copies of files of object stores on this machine, and of folders of this machine in object stores."""

import functools
import hashlib
import json
from pathlib import Path

from diffusion.storage.files import atomic_write, remove, user_cache, written
from diffusion.storage.paths import PACKAGES, ObjectPath, path_of


def upload(source: Path, target: ObjectPath) -> None:
    """Make a folder of a store equal to a local one; files that have their name and size there are taken as equal.

    Outer files come last, among them those by which a reader knows that a folder is complete.
    """
    there = target.files()
    files = [file for file in source.rglob("*") if file.is_file()]
    names = {f"/{file.relative_to(source).as_posix()}": file for file in files}
    for name in sorted(names, key=lambda each: (-each.count("/"), each)):
        if there.get(name, {}).get("size") != names[name].stat().st_size:
            target.store.put_file(str(names[name]), target.key + name)
    for name in there.keys() - names.keys():
        target.store.rm_file(target.key + name)


def replace_folder(source: Path, target: Path) -> None:
    """Move a complete local folder to its place, and delete what is there."""
    remove(target)
    if isinstance(target, ObjectPath):
        upload(source, target)
        remove(source)
    else:
        source.rename(target)


def place_of_copies() -> Path:
    """The folder of all copies."""
    return user_cache() / "fetched"


def copy_of(path: Path) -> Path:
    """Where `fetched` puts a file or folder of a store; other paths are their own."""
    return place_of_copies() / Path(*path.parts) if isinstance(path, ObjectPath) else path


def as_given(message: str) -> str:
    """A message with the paths of the user instead of those of their copies."""
    for scheme in PACKAGES:
        message = message.replace(f"{place_of_copies()}/{scheme}:/", f"{scheme}://")
    return message


def fetched(path: Path, folder: Path | None = None) -> Path:
    """A local copy of a file or folder of a store, which is brought up to date; other paths are their own.

    Args:
      folder: where the copy is to be; in the user's cache without it.

    Raises:
      ValueError: where the store cannot be read.
    """
    if not isinstance(path, ObjectPath):
        return path
    copy = folder or copy_of(path)
    record = place_of_copies() / f"{hashlib.sha256(f'{path} {copy}'.encode()).hexdigest()[:16]}.json"
    try:
        known = json.loads(record.read_text()) if record.is_file() else {}
        versions = {name: version(info) for name, info in path.files().items()}
        for name, each in versions.items():
            target = Path(f"{copy}{name}")
            if known.get(name) != each or not target.is_file():
                with written(target) as partial:
                    path.store.get_file(path.key + name, str(partial))
    except Exception as error:  # each client has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: cannot be read ({reason}); check its name and your credentials") from None
    for file in [copy, *copy.rglob("*")] if copy.exists() else []:
        # Files that begin with a dot may be those that another process is fetching.
        if file.is_file() and file.name[0] != "." and str(file).removeprefix(str(copy)) not in versions:
            file.unlink()
    atomic_write(record, json.dumps(versions))
    return copy


def version(info: dict) -> str:
    """What changes with the content of an object."""
    tag = next((str(info[name]) for name in ("ETag", "etag", "md5Hash", "created") if info.get(name)), "")
    return f"{info.get('size')} {tag}"


@functools.cache
def fetched_text(text: str) -> str:
    """`fetched` of a path in a config, or of both paths of "A,B", once; local paths remain as they are."""
    if "://" not in text:
        return text
    return ",".join(str(fetched(path_of(part.strip()))) for part in text.split(","))
