"""Populations: trainings that are one program, of which `run --population=N` trains N at a time.

They have the same data, network, objective and settings. Seeds and hyper-parameters of the optimizer may differ, which
are inputs of the training step.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import islice

import jax

from diffusion.train.divergence import DIVERGED, Diverged
from experiments import locks, records
from experiments.identity import digest, training_fields
from experiments.plan import Job
from experiments.run_context import Run

# Fields of the optimizer that are in its state; `train.steps`, which is as well, is also the length of the training.
INPUTS = ("learning_rate", "warmup", "floor", "beta1", "beta2", "epsilon", "weight_decay", "clip")


def check(most: int) -> None:
    """Raise ValueError for a population on several processes, which read parts of every batch."""
    if most > 1 and jax.process_count() > 1:
        raise ValueError("--population: is for one process, and these are several; leave it out")


def program(run: Run) -> str:
    """What decides the program of a training and the data that all its members read, as a hash."""
    fields = {name: part for name, part in training_fields(run.job.config).items() if name != "seed"}
    fields["optimizer"] = {name: value for name, value in fields["optimizer"].items() if name not in INPUTS}
    # Equal fields may have other data, where the weights to start from were trained with another tokenizer.
    return digest([fields, run.job.config["train"], run.job.config["mesh"], run.dataset.fingerprint, run.tokenizer])


def diverged(run: Run) -> bool:
    """Whether the training ended by divergence when it ran last."""
    return str(records.read(run.folder / records.FAILED).get("error", "")).startswith(DIVERGED)


def chosen(first: Run, runs: Sequence[Run], most: int) -> list[Run]:
    """The trainings among `runs` that go into one program with `first`, after it, `most` in all.

    Those that need a job that is not done wait, and those that another command has or has done. One that diverged
    before trains alone, as it would end the others.
    """
    alone = [first]
    if first.job.verb != "train" or diverged(first) or locks.taken(first.job, first.workdir):
        return alone
    wanted = program(first)

    def fits(run: Run) -> bool:
        job, workdir = run.job, run.workdir
        return (
            job.verb == "train"
            and job.id != first.job.id
            and program(run) == wanted
            and all((workdir / "jobs" / need / "result.json").exists() for need in job.needs.values())
            and not job.done(workdir)
            and not diverged(run)
            and not locks.taken(job, workdir)
        )

    return alone + list(islice(filter(fits, runs), most - 1))


def train_together(first: Job, runs: dict[str, Run], most: int, execute: Callable[..., list[dict]]) -> list[str]:
    """Train a job and others of `runs` as one program where there are any; returns the ids of those that are done.

    They are taken out of `runs`. `execute(*runs)` runs jobs as one program. Where one diverges, the others go on
    without it.

    Raises:
      Diverged: for the first that diverged, after the others are done.
    """
    group = chosen(runs[first.id], list(runs.values()), most)
    if len(group) == 1:
        return []
    errors: list[Diverged] = []
    with ExitStack() as stack:
        # All commands take locks in one order, so that no two of them wait for each other.
        order = sorted(group, key=lambda run: run.job.id)
        done = {run.job.id: stack.enter_context(locks.held(run.job, run.workdir)) for run in order}
        together = [runs.pop(run.job.id) for run in group if not done[run.job.id]]
        ids = [run.job.id for run in together]
        while together:
            number = f"{len(together)} trainings as one program" if len(together) > 1 else "one training"
            print(f"{number}: {', '.join(run.job.id for run in together)}", file=sys.stderr)
            try:
                execute(*together)
                break
            except Diverged as error:
                errors.append(error)
                together = [run for run in together if run.folder != error.directory]
    if errors:
        raise errors[0]
    return ids
