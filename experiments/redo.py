"""Doing jobs again: those of named rows, and those that read their results."""

import sys
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from diffusion.storage import cache_of, remove
from experiments.plan import Job


def select(jobs: list[Job], names: list[str]) -> list[Job]:
    """The jobs of the rows called `names`, and all jobs that need one of them, in the order of the plan.

    A job that several rows share is that of the first of them.

    Raises:
      ValueError: for a row without a job of its own, with the names of the rows that have one.
    """
    known = dict.fromkeys(job.row for job in jobs)
    for name in names:
        if name not in known:
            raise ValueError(f"--redo: no job is that of a row {name!r}; known: {', '.join(map(repr, known))}")
    chosen: dict[str, Job] = {}
    for job in jobs:
        if job.row in names or set(job.needs.values()) & chosen.keys():
            chosen[job.id] = job
    return list(chosen.values())


def move_aside(chosen: list[Job], workdir: Path) -> None:
    """Move the folders of completed jobs to `redone/ID.NUMBER` of the work directory, and say so.

    Where some of the jobs were moved before and are not complete again, an earlier command was interrupted, and this
    one goes on with it: nothing is moved.
    """
    interrupted = [job for job in chosen if not job.done(workdir) and moved_before(job, workdir)]
    if jax.process_index() == 0:
        if interrupted:
            print(f"redo: goes on, {len(interrupted)} of {len(chosen)} jobs are left", file=sys.stderr)
        for job in [] if interrupted else chosen:
            folder = job.folder(workdir)
            if folder.exists():
                aside = workdir / "redone" / f"{job.id}.{len(moved_before(job, workdir)) + 1}"
                aside.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(aside)
                print(f"redo: {job.verb} {job.row!r}, seed {job.seed}; the old one is in {aside}", file=sys.stderr)
        if chosen and not interrupted:
            # Lookahead samples are cached by the ids of jobs, which weights to come share with those before.
            remove(cache_of(workdir) / "lookahead")
    if jax.process_count() > 1:
        # No process asks whether a job is done before the old ones are moved.
        multihost_utils.sync_global_devices("redo")


def moved_before(job: Job, workdir: Path) -> list[Path]:
    """Folders of earlier results of a job."""
    return sorted((workdir / "redone").glob(f"{job.id}.*"))
