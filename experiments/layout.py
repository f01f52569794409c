"""A work directory: whether it can be written, and its README, which says which identity the names of jobs have."""

import os
import tempfile
from pathlib import Path

from diffusion.storage import ObjectPath, atomic_write, path_of
from experiments.identity import IDENTITY

MARK = f"identity {IDENTITY}"
LAYOUT = f"""# What is in this folder

- `jobs/VERB-NAME-HASH/`: one job, named by the hash of what decides its result ({MARK}). `config.json` is what it ran
  with, `job.json` who started it and by which command, `failed.json` why it failed, until it runs again, and
  `result.json` its numbers with commit, versions, device and data hash. A training also has `metrics.jsonl` (one
  record a line), `checkpoints/` (to resume), `weights/` (averaged, for --config.checkpoint, with their tokenizer),
  and after `--profile` `profile/`, a trace of some steps; sampling has `samples.txt`, and after `sample --trace`
  `trace.html`, which plays its steps.
- `redone/VERB-NAME-HASH.NUMBER/`: jobs as they were before `run --redo=ROW`; safe to delete.
- `tables/TABLE.VARIANT/`: `table.md`, its plots, `samples.md`, and `rows.jsonl`, the results that it was made of.
- `pods/`, `logs/`: the scripts of `launch.py pods`, and the logs of the processes that they start, HOST-PROCESS.log.
- `cache/`: packed data, trained tokenizers, compiled programs; safe to delete.

A job without `result.json` is not finished: give the same command again and it goes on.
`python launch.py status --workdir=FOLDER` says which jobs are done, running or failed.
"""


def job_folder(row: dict, workdir: Path) -> Path:
    """Folder of the job of a result, which may have been joined from another work directory."""
    return path_of(row.get("place", workdir)) / "jobs" / row["job"]


def check_layout(workdir: Path) -> None:
    """Raise ValueError for a work directory with jobs of an earlier version, which would not be found but run again."""
    file = workdir / "README.md"
    earlier = file.is_file() and MARK not in file.read_text(errors="replace")
    if earlier and any((workdir / "jobs").glob("*/config.json")):
        raise ValueError(
            f"--workdir: {workdir} holds jobs with the ids of an earlier version; rename them by "
            f"`launch.py plan --migrate={workdir}`, or pass another folder"
        )


def write_layout(workdir: Path) -> None:
    """Write the README."""
    atomic_write(workdir / "README.md", LAYOUT)


def check_writable(workdir: Path) -> None:
    """Raise ValueError for a work directory in which nothing can be written, or which cannot be made."""
    if isinstance(workdir, ObjectPath):
        token = workdir / f".writable-{os.getpid()}"
        try:
            token.write_bytes(b"")
            token.unlink(missing_ok=True)
        except Exception as error:  # each client has errors of its own
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"--workdir: cannot write to '{workdir}' ({reason}); check the bucket and your credentials"
            ) from None
        return
    place = next(each for each in (workdir, *workdir.absolute().parents) if each.exists())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise ValueError(f"--workdir: cannot write to '{workdir}' ({error.strerror}); pass a writable folder") from None
