"""What a job writes of itself beside its result: who started it, by which command, and why it failed."""

import contextlib
import json
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax

from diffusion.storage import atomic_write
from experiments.plan import Job

STARTED, FAILED = "job.json", "failed.json"


@contextlib.contextmanager
def kept(job: Job, folder: Path) -> Iterator[None]:
    """Write who started a job; where it raises an error, write the reason, which the next start removes.

    A signal is no failure: the job goes on when its command is given again. So do trainings of one program of which
    another one diverged.
    """
    if jax.process_index() == 0:
        started = {"verb": job.verb, "row": job.row, "seed": job.seed, "command": command()} | place()
        atomic_write(folder / STARTED, json.dumps(started, indent=1) + "\n")
        (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if getattr(error, "directory", folder) != folder:  # of `Diverged`
            raise
        # The error itself must reach the user also where the disk is full, or another process writes the same.
        with contextlib.suppress(OSError):
            atomic_write(folder / FAILED, json.dumps({"error": reason(error)} | place(), indent=1) + "\n")
        raise


def command() -> str:
    """The command of this process, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def place() -> dict:
    """The host and the time, in seconds since 1970."""
    return {"host": platform.node(), "time": time.time()}


def reason(error: Exception) -> str:
    """The first line of an error, after its type unless it is bad input or a training that diverged."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    if not lines:
        return kind
    return lines[0] if isinstance(error, ValueError) or kind == "Diverged" else f"{kind}: {lines[0]}"


def read(path: Path) -> dict:
    """A record, or an empty one where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text())
        return found if isinstance(found, dict) else {}
    return {}
