"""What a table needs, as a list of jobs: train, then evaluate and sample; each named by the hash of its config.

Two rows, or two tables, that ask for the same training share one job, and a job that is done is never run again.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ml_collections import ConfigDict

# What decides the result of each verb; the rest (logging, meshes, folders) does not.
TRAIN_SECTIONS = ("data", "codec", "model", "process", "objective", "optimizer", "train", "seed", "checkpoint")
# Fields with their defaults that came after jobs were done: they count where they differ, so that those keep their ids.
LATER = {"data": {"validation_images": 5000}}
HOUSEKEEPING = {"train": ("log_every", "checkpoint_every", "keep"), "data": ("cache_dir",)}


@dataclass(frozen=True)
class Job:
    """One unit of work; `needs` are ids of jobs that must be done first."""

    id: str
    verb: str
    row: str
    seed: int
    needs: list[str]
    config: dict = field(repr=False)

    def folder(self, workdir: Path) -> Path:
        """Where its files live."""
        return workdir / "jobs" / self.id

    def done(self, workdir: Path) -> bool:
        """Whether its result is complete."""
        return (self.folder(workdir) / "result.json").exists()


def digest(value: object) -> str:
    """A short stable hash of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def plain(config: ConfigDict) -> dict:
    """The config as plain data, tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


def train_identity(config: ConfigDict) -> dict:
    """The part of a config that decides what is trained."""
    parts = {name: plain(config)[name] for name in TRAIN_SECTIONS}
    for section, names in HOUSEKEEPING.items():
        parts[section] = {key: value for key, value in parts[section].items() if key not in names}
    if config.model.net in config:
        parts[config.model.net] = plain(config)[config.model.net]
    for section, fields in LATER.items():
        parts[section] = {key: value for key, value in parts[section].items() if fields.get(key) != value}
    if config.codec.digits == 1:
        del parts["codec"]
    return parts


def job_id(verb: str, row: str, identity: object) -> str:
    """A name that a reader recognises and that no other config shares."""
    slug = re.sub(r"[^a-z0-9]+", "-", row.lower()).strip("-")
    return f"{verb}-{slug[:40]}-{digest(identity)}"


def resolve(config: ConfigDict, overrides: dict, seed: int) -> ConfigDict:
    """The config of one row and seed; raises ValueError for an override that names no field."""
    resolved = config.copy_and_resolve_references()
    for name, value in overrides.items():
        section, _, key = name.rpartition(".")
        target = resolved.get(section) if section else resolved
        if not isinstance(target, ConfigDict) or key not in target:
            raise ValueError(f"{name}: the table's row sets a field that the config does not have")
        target[key] = value
    resolved.seed = seed
    return resolved


def train_job(row: str, config: ConfigDict) -> Job:
    """The training that a config asks for."""
    identity = train_identity(config)
    # Named by the model, not by the row: rows that share a network share the job.
    name = f"{config.objective.name}-{config.data.source}"
    return Job(job_id("train", name, identity), "train", row, config.seed, [], plain(config))


def find_row(rows: list[dict], name: str) -> dict:
    """The row called `name`; raises ValueError that lists the known ones."""
    for row in rows:
        if row["name"] == name:
            return row
    raise ValueError(f"row: unknown {name!r}; known: {', '.join(repr(row['name']) for row in rows)}")


def judge_job(rows: list[dict], config: ConfigDict) -> Job | None:
    """The training of the judge, where the judge is a row of this table: always that row's first seed."""
    if config.judge.name not in ("row", "classifier"):
        return None
    row = find_row(rows, config.judge.row)
    return train_job(row["name"], resolve(config, row["overrides"], config.seeds[0]))


def plan(rows: list[dict], config: ConfigDict) -> list[Job]:
    """All jobs of a table's rows, in an order in which each comes after what it needs.

    A row is a dict: its `name`, its `overrides` of config fields, and the `verbs` (evaluate, sample) to run for it;
    with `seeds` it takes only so many of the table's seeds, the first ones.
    """
    jobs: dict[str, Job] = {}
    for row in rows:
        for seed in config.seeds[: row.get("seeds")]:
            resolved = resolve(config, row["overrides"], seed)
            needs = []
            # Held-out text stands in for samples and needs no model.
            if not resolved.checkpoint and resolved.sample.policy != "data":
                training = train_job(row["name"], resolved)
                jobs.setdefault(training.id, training)
                needs = [training.id]
            identity = [train_identity(resolved)]
            for verb in row["verbs"]:
                needed = list(needs)
                part = [*identity, plain(resolved)[verb]]
                if verb == "sample":
                    judge = judge_job(rows, config)
                    part += [plain(resolved)["judge"], plain(resolved)["quality"]]
                    if judge:
                        jobs.setdefault(judge.id, judge)
                        needed += [judge.id] if judge.id not in needed else []
                        part += [judge.id]
                job = Job(job_id(verb, row["name"], part), verb, row["name"], seed, needed, plain(resolved))
                jobs[job.id] = job
    order = {"train": 0, "evaluate": 1, "sample": 2}
    return sorted(jobs.values(), key=lambda job: order[job.verb])


def write_plan(jobs: list[Job]) -> str:
    """Jobs as JSON lines."""
    return "".join(json.dumps(asdict(job)) + "\n" for job in jobs)


def read_plan(path: Path) -> list[Job]:
    """Jobs from JSON lines; raises ValueError naming the line that is not a job."""
    if not path.is_file():
        raise ValueError(f"jobs: {path} is no file; write it with `launch.py plan --config=... > {path}`")
    jobs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            jobs.append(Job(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            message = f"jobs: line {number} of {path} is not a job; write it anew with `launch.py plan`"
            raise ValueError(message) from error
    return jobs


def atomic_write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.replace(path)
