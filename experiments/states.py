"""States of jobs: done, running, failed, stopped or waiting, each with what is known of it."""

import time
from dataclasses import dataclass
from pathlib import Path

from diffusion.train.writers import read_metrics
from experiments import locks
from experiments.plan import Job
from experiments.records import FAILED, STARTED, read

STATES = ("done", "running", "failed", "stopped", "waiting")
ORDER = ("train", "evaluate", "sample", "geneval")


@dataclass(frozen=True)
class State:
    """One of `STATES`, and a phrase with progress, reason, or what is waited for."""

    job: Job
    name: str
    detail: str


def states(jobs: list[Job], workdir: Path) -> list[State]:
    """The state of every job.

    A job is running while its lock is held; on file systems without locks it is listed as stopped.
    """
    names = {job.id: name_of(job, workdir) for job in jobs}
    known = {job.id: job for job in jobs}
    details = {"done": finished, "running": progress, "failed": failure, "stopped": stopped}
    found = []
    for job in jobs:
        name = names[job.id]
        try:
            detail = waits(job, known, names) if name == "waiting" else details[name](job, job.folder(workdir))
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
            detail = "its files are damaged"
        found.append(State(job, name, detail))
    return found


def name_of(job: Job, workdir: Path) -> str:
    """The name of a job's state."""
    folder = job.folder(workdir)
    if job.done(workdir):
        return "done"
    if locks.taken(job, workdir):
        return "running"
    if (folder / FAILED).exists():
        return "failed"
    return "stopped" if (folder / "config.json").exists() else "waiting"


def finished(job: Job, folder: Path) -> str:
    """How long it took, and the validation loss of a training."""
    result = read(folder / "result.json")
    loss = result.get("metrics", {}).get("validation_loss")
    others = f" with {amount(result['population'] - 1, 'other')}" if "population" in result else ""
    parts = [f"in {duration(result['seconds'])}{others}"] if "seconds" in result else []
    return ", ".join([*parts, *([f"validation loss {loss:.4f}"] if loss is not None else [])])


def progress(job: Job, folder: Path) -> str:
    """Step, speed, remaining time and loss of a training, by its last records; otherwise the time since its start."""
    records = [record for record in read_metrics(folder / "metrics.jsonl") if "loss" in record]
    begun = read(folder / STARTED).get("time")
    elapsed = f"for {duration(time.time() - begun)}" if begun else "starting"
    if job.verb != "train" or not records:
        return elapsed
    last, total = records[-1], job.config["train"]["steps"]
    parts = [f"step {last['step']:,} of {total:,}"]
    if seconds := last.get("seconds_per_step"):
        left = duration((total - last["step"]) * seconds)
        parts += [f"{seconds:.3g} s/step", f"{last['tokens_per_second']:,.0f} tokens/s", f"{left} left"]
    age = duration(time.time() - (folder / "metrics.jsonl").stat().st_mtime)
    return ", ".join([*parts, f"loss {last['loss']:.4f}", f"recorded {age} ago"])


def failure(job: Job, folder: Path) -> str:
    """The reason, the host and how long ago."""
    record = read(folder / FAILED)
    when = f", {duration(time.time() - record['time'])} ago" if "time" in record else ""
    return f"{record.get('error', 'no reason was recorded')} (on {record.get('host', 'an unknown host')}{when})"


def stopped(job: Job, folder: Path) -> str:
    """Where it was interrupted; its command goes on from the last checkpoint."""
    steps = [record["step"] for record in read_metrics(folder / "metrics.jsonl")]
    where = f" at step {steps[-1]:,} of {job.config['train']['steps']:,}" if steps and job.verb == "train" else ""
    return f"interrupted{where}; `run` goes on with it"


def waits(job: Job, known: dict[str, Job], names: dict[str, str]) -> str:
    """The jobs that it needs and that are not done, with their states."""
    missing = [need for need in dict.fromkeys(job.needs.values()) if names.get(need) != "done"]
    described = [f"{title(known[need])} ({names[need]})" if need in known else need for need in missing]
    return f"for {' and '.join(described)}" if described else "ready to run"


def title(job: Job) -> str:
    """Verb, row and seed of a job, or its id where the row is unknown."""
    return f"{job.verb} {job.row!r}, seed {job.seed}" if job.row else job.id


def table_of(job: Job) -> str:
    """Table and variant of a job, such as "quickstart.local"."""
    return f"{job.config.get('table', '')}.{job.config.get('variant', '')}"


def several_tables(found: list[State]) -> bool:
    """Returns whether jobs belong to more than one table."""
    return len({table_of(each.job) for each in found}) > 1


def stored(workdir: Path) -> list[Job]:
    """All jobs of the folders of a work directory: trainings first, then by table, row and seed."""
    jobs = [job for folder in sorted((workdir / "jobs").glob("*")) if (job := stored_job(folder))]
    place = {verb: number for number, verb in enumerate(ORDER)}
    return sorted(
        jobs, key=lambda job: (place.get(job.verb, len(place)), str(job.config.get("table", "")), job.row, job.seed)
    )


def stored_job(folder: Path) -> Job | None:
    """The job of a folder, as far as its files say; None for a folder without a config."""
    config = read(folder / "config.json")
    record = {"row": "", "seed": config.get("seed")} | read(folder / STARTED) | read(folder / "result.json")
    row, seed = str(record["row"]), record["seed"] if isinstance(record["seed"], int) else 0
    return Job(folder.name, folder.name.partition("-")[0], row, seed, {}, config) if config else None


def amount(number: int, noun: str) -> str:
    """A number of things, such as "1 job" or "2 jobs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """A duration in its two largest units, such as "2 h 5 min"."""
    whole = max(round(seconds), 0)
    for large, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
