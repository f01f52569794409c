"""Errors of disks and paths, which are said in one line, although several threads of a checkpoint meet them."""

import errno
import inspect
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from absl import logging as absl_logging

FULL = "--workdir: the disk of '{}' is full; free some and give the command again, which goes on from what is complete"
FULL_TEXTS = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
TEXTS = (*FULL_TEXTS, *(os.strerror(number) for number in (errno.EIO, errno.ESTALE, errno.EROFS)))
# Errors of operating systems that are those of a path, which the user gave.
REFUSED = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
REFUSED += (errno.ELOOP, errno.EROFS)
CLOSED = "Event loop is closed"  # what remains of a write that Orbax gave up


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def says_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that a disk is full."""
    return any(text in str(each) for each in causes(error) for text in FULL_TEXTS)


def refused_path(error: BaseException) -> str:
    """What is wrong with the path that an operating system refused; empty for other errors."""
    if not isinstance(error, OSError) or not (error.errno in REFUSED or isinstance(error, FileNotFoundError)):
        return ""
    return f"'{error.filename}': {error.strerror}; pass another path" if error.filename else str(error)


def unread(error: BaseException) -> str:
    """What an error, or its cause, says of a file that the system does not read or write; empty for other errors."""
    for each in (error, error.__cause__):
        if isinstance(each, OSError) and each.filename:
            return f"{each.filename}: {each.strerror}; allow it or see to the disk, and give the command again"
    return ""


def is_of_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a disk."""
    return any(text in str(each) for each in causes(error) for text in TEXTS)


def hide_from_threads() -> None:
    """Print no traceback of them from other threads and from destructors: the main thread says it once.

    Nor of coroutines, which Orbax leaves behind where a checkpoint cannot be read.
    """
    in_thread, unraisable = threading.excepthook, sys.unraisablehook

    def say_in_thread(caught: Any) -> None:
        if not is_of_disk(caught.exc_value):
            in_thread(caught)

    def say_unraisable(caught: Any) -> None:
        left = inspect.iscoroutine(caught.object) or CLOSED in str(caught.exc_value)
        if not left and not is_of_disk(caught.exc_value):
            unraisable(caught)

    def of_something_else(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not is_of_disk(error) and not any(text in record.getMessage() for text in TEXTS)

    threading.excepthook, sys.unraisablehook = say_in_thread, say_unraisable
    absl_logging.get_absl_handler().addFilter(of_something_else)
