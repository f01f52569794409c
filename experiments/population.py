"""Populations: trainings that are one program, of which `run --population=N` trains N at a time.

They have the same data, network, objective and settings. Seeds and hyper-parameters of the optimizer may differ, which
are inputs of the training step.
"""

from collections.abc import Sequence
from pathlib import Path

import jax

from experiments import locks
from experiments.identity import digest, training_fields
from experiments.plan import Job

# Fields of the optimizer that are in its state; `train.steps`, which is as well, is also the length of the training.
INPUTS = ("learning_rate", "warmup", "floor", "beta1", "beta2", "epsilon", "weight_decay", "clip")


def check(most: int) -> None:
    """Raise ValueError for a population on several processes, which read parts of every batch."""
    if most > 1 and jax.process_count() > 1:
        raise ValueError("--population: is for one process, and these are several; leave it out")


def program(job: Job) -> str:
    """What decides the program of a training, as a hash."""
    fields = {name: part for name, part in training_fields(job.config).items() if name != "seed"}
    fields["optimizer"] = {name: value for name, value in fields["optimizer"].items() if name not in INPUTS}
    return digest([fields, job.config["train"], job.config["mesh"], job.config["data"]["cache_dir"]])


def saved(job: Job, workdir: Path) -> int:
    """The step of the most recent checkpoint of a training, or 0."""
    folder = job.folder(workdir) / "checkpoints"
    steps = (int(each.name) for each in folder.iterdir() if each.name.isdecimal()) if folder.exists() else ()
    return max(steps, default=0)


def chosen(first: Job, jobs: Sequence[Job], workdir: Path, most: int) -> list[Job]:
    """The trainings among `jobs` that go into one program with `first`, after it, `most` in all.

    Others wait: those that need a job that is not done, those that another command has, and those that are further from
    `first` than from one checkpoint to the next, because members begin at the step of the last one.
    """
    if first.verb != "train":
        return [first]
    begun, every = saved(first, workdir), first.config["train"]["checkpoint_every"]

    def fits(job: Job) -> bool:
        return (
            job.verb == "train"
            and job.id != first.id
            and program(job) == program(first)
            and all((workdir / "jobs" / need / "result.json").exists() for need in job.needs.values())
            and abs(saved(job, workdir) - begun) <= every
            and not locks.taken(job, workdir)
        )

    return [first, *filter(fits, jobs)][:most]
