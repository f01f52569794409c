"""The README of a work directory, which also says under which identity its jobs have their names."""

from pathlib import Path

from experiments.identity import IDENTITY
from experiments.plan import atomic_write

MARK = f"identity {IDENTITY}"
LAYOUT = f"""# What is in this folder

- `jobs/VERB-NAME-HASH/`: one job, named by the hash of what decides its result ({MARK}). `config.json` is what it ran
  with, `result.json` its numbers with commit, versions, device and data hash. A training also has `metrics.jsonl` (one
  record a line), `checkpoints/` (to resume), `weights/` (averaged, for --config.checkpoint, with their tokenizer),
  and after `--profile` `profile/`, a trace of some steps; sampling has `samples.txt`, and after `sample --trace`
  `trace.html`, which plays its steps.
- `redone/VERB-NAME-HASH.NUMBER/`: jobs as they were before `run --redo=ROW`; safe to delete.
- `tables/TABLE.VARIANT/`: `table.md`, its plots, `samples.md`, and `rows.jsonl`, the results that it was made of.
- `pods/`, `logs/`: the scripts of `launch.py pods`, and the logs of the processes that they start, HOST-PROCESS.log.
- `cache/`: packed data, trained tokenizers, compiled programs; safe to delete.

A job without `result.json` is not finished: give the same command again and it goes on.
"""


def check_layout(workdir: Path) -> None:
    """Raise ValueError for a work directory with jobs of an earlier version, which would not be found but run again."""
    file = workdir / "README.md"
    if file.is_file() and MARK not in file.read_text() and any((workdir / "jobs").glob("*/config.json")):
        raise ValueError(
            f"--workdir: {workdir} holds jobs with the ids of an earlier version; rename them by "
            f"`launch.py plan --migrate={workdir}`, or pass another folder"
        )


def write_layout(workdir: Path) -> None:
    """Write the README."""
    atomic_write(workdir / "README.md", LAYOUT)
