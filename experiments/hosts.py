"""Whether the processes of a run agree: they plan the same jobs, and share a work directory."""

import secrets
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffusion.storage import ObjectPath, atomic_write
from experiments.identity import digest
from experiments.plan import Job


def check_hosts(jobs: list[Job]) -> None:
    """Raise ValueError where the processes of a run plan different jobs, which they would wait for without end."""
    if jax.process_count() == 1:
        return
    number = np.int32(int(digest([job.id for job in jobs])[:7], 16))
    if len(set(np.ravel(multihost_utils.process_allgather(number)).tolist())) > 1:
        raise ValueError(
            "jobs: the processes plan different jobs; make files of data, tokenizers and checkpoints equal on every "
            "host, or pass one plan to all of them (--jobs=FILE)"
        )


def check_shared(workdir: Path) -> None:
    """Raise ValueError, in all processes, where one of them does not see the files that the first one writes."""
    if jax.process_count() == 1:
        return
    if isinstance(workdir, ObjectPath) and workdir.scheme == "s3":
        raise ValueError(f"--workdir: {workdir} is for one process; pass gs:// or a folder that all hosts share")
    name = multihost_utils.broadcast_one_to_all(np.uint32(secrets.randbits(32)))
    token = workdir / f".seen-{int(name):08x}"
    if jax.process_index() == 0:
        atomic_write(token, "All processes must see this file.\n")
    multihost_utils.sync_global_devices("token")
    seen = np.ravel(multihost_utils.process_allgather(np.int32(appears(token))))
    if jax.process_index() == 0:
        token.unlink()
    if not seen.all():
        raise ValueError(
            f"--workdir: process {int(seen.argmin())} does not see the files of process 0 in '{workdir}'; pass a "
            "folder that all hosts share, or gs://BUCKET/FOLDER"
        )


def appears(file: Path, tries: int = 10) -> bool:
    """Whether a file is there, soon: shared file systems may take seconds to show it."""
    for number in range(tries):
        if file.exists():
            return True
        time.sleep(0.1 * number)
    return False
