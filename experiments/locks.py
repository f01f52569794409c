"""Locks of jobs, so that several commands in one work directory share the work: files, or leases in object stores."""

import contextlib
import fcntl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffusion.storage import ObjectPath
from experiments import leases
from experiments.plan import Job


@contextlib.contextmanager
def held(job: Job, workdir: Path) -> Iterator[bool]:
    """Hold a job, after the process that has it, and give whether it is done; the lock ends with its process."""
    if agreed(job.done(workdir)):
        yield True
        return
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            file = lock_file(job, workdir)
            if isinstance(file, ObjectPath):
                stack.enter_context(leases.leased(file, job.id))
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                wait(stack.enter_context(file.open("a")), job)
        yield agreed(job.done(workdir))


def lock_file(job: Job, workdir: Path) -> Path:
    """The file that the process at a job locks, or its lease."""
    return workdir / "locks" / job.id if isinstance(workdir, ObjectPath) else workdir / "cache" / "locks" / job.id


def taken(job: Job, workdir: Path) -> bool:
    """Returns whether a process is at a job; False also on file systems without locks."""
    file = lock_file(job, workdir)
    if isinstance(file, ObjectPath):
        return leases.read(file)[1] > time.time()
    try:
        with file.open() as stream:
            # A shared lock ends at once, so that it delays nobody.
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no locks
        return False
    return False


def wait(stream, job: Job) -> None:
    """Lock a file, and say so where another process has it."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"{job.id}: another command is at it; waiting for that", file=sys.stderr)
        fcntl.flock(stream, fcntl.LOCK_EX)
    except OSError:  # file systems without locks
        return


def agreed(done: bool) -> bool:
    """What the first process found, in all processes."""
    if jax.process_count() == 1:
        return done
    return bool(multihost_utils.broadcast_one_to_all(np.int32(done)))
