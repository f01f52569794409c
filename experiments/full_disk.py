"""A full disk, which is said in one line, although several threads of a checkpoint meet it."""

import logging
import sys
import threading
from typing import Any

from absl import logging as absl_logging

MESSAGE = (
    "--workdir: the disk of '{}' is full; free some and give the command again, which goes on from what is complete"
)
TEXTS = ("No space left on device", "Disk quota exceeded")
CLOSED = "Event loop is closed"  # what remains of a write that Orbax gave up


def says_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that a disk is full."""
    while error is not None:
        if any(text in str(error) for text in TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def hide_from_threads() -> None:
    """Print no traceback of a full disk from other threads and from destructors: the main thread says it once."""
    in_thread, unraisable = threading.excepthook, sys.unraisablehook

    def say_in_thread(caught: Any) -> None:
        if not says_full(caught.exc_value):
            in_thread(caught)

    def say_unraisable(caught: Any) -> None:
        if not says_full(caught.exc_value) and CLOSED not in str(caught.exc_value):
            unraisable(caught)

    def of_something_else(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not says_full(error) and not any(text in record.getMessage() for text in TEXTS)

    threading.excepthook, sys.unraisablehook = say_in_thread, say_unraisable
    absl_logging.get_absl_handler().addFilter(of_something_else)
