"""The verb `run`: every job of a table that is not done yet, then the table; and `plan`, the list of them."""

import json
import sys
from pathlib import Path
from types import ModuleType

import jax
from ml_collections import ConfigDict

from experiments import evaluate, sample, train
from experiments.context import context
from experiments.jobs import Job, atomic_write, plan

VERBS = {"train": train.run, "evaluate": evaluate.run, "sample": sample.run}


def execute(job: Job, workdir: Path) -> dict:
    """Run one job unless it is done, and return its result row.

    Raises:
      ValueError: when a job that it needs is not done.
    """
    folder = job.folder(workdir)
    if job.done(workdir):
        return json.loads((folder / "result.json").read_text())
    for need in job.needs:
        if not (workdir / "jobs" / need / "result.json").exists():
            raise ValueError(f"jobs: {job.id} needs {need}, which is not done; run that job first")
    result = VERBS[job.verb](context(job, workdir), job)
    row = {"job": job.id, "verb": job.verb, "row": job.row, "seed": job.seed, "config": job.config, **result}
    if jax.process_index() == 0:
        atomic_write(folder / "config.json", json.dumps(job.config, indent=1) + "\n")
        atomic_write(folder / "result.json", json.dumps(row, indent=1) + "\n")
    return row


def run_jobs(jobs: list[Job], workdir: Path) -> list[dict]:
    """Run jobs in order, saying which; those that are done are only read."""
    rows = []
    for number, job in enumerate(jobs, 1):
        state = "done before" if job.done(workdir) else "running"
        print(f"[{number}/{len(jobs)}] {job.verb:8s} {job.row}, seed {job.seed}: {state} ({job.id})", file=sys.stderr)
        rows.append(execute(job, workdir))
    return rows


def needed(module: ModuleType, config: ConfigDict, verb: str, row: str) -> list[Job]:
    """The jobs of one verb for one row (default: the first row that has it), with all that they need."""
    jobs = plan(module, config)
    wanted = [job for job in jobs if job.verb == verb and (job.row == row or not row)]
    if verb == "train":
        wanted = [job for job in jobs if job.verb == verb]
    if not wanted:
        known = sorted({job.row for job in jobs if job.verb == verb})
        raise ValueError(f"row: {row!r} has nothing to {verb}; known: {', '.join(known)}")
    ids = {need for job in wanted for need in job.needs} | {job.id for job in wanted}
    return [job for job in jobs if job.id in ids]
