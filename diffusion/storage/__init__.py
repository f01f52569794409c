"""Folders of this machine and of object stores, read and written alike."""

from diffusion.storage.copies import as_given, copy_of, fetched, fetched_text, replace_folder, upload
from diffusion.storage.files import (
    Appender,
    atomic_write,
    cache_of,
    for_terminal,
    remove,
    scratch,
    user_cache,
    written,
)
from diffusion.storage.paths import ObjectPath, path_of

__all__ = [
    "Appender",
    "ObjectPath",
    "as_given",
    "atomic_write",
    "cache_of",
    "copy_of",
    "fetched",
    "fetched_text",
    "for_terminal",
    "path_of",
    "remove",
    "replace_folder",
    "scratch",
    "upload",
    "user_cache",
    "written",
]
