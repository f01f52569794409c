"""What a table needs, as a list of jobs: train, then evaluate and sample; each named by the hash of its config.

Two rows, or two tables, that ask for the same training share one job, and a job that is done is never run again.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs.base import GAUSSIAN, TRANSLATION, defaults
from experiments.families import family_of, own_sections

# What decides the result of a training; the rest (logging, meshes, folders) does not.
SECTIONS = ("data", "codec", "model", "memory", "process", "objective", "optimizer", "train", "seed", "checkpoint")
# Fields with their defaults that came after jobs were done: they count where they differ, so that those keep their ids.
LATER = {
    "data": {"validation_images": 5000, "source_length": 16, "reverse": False, "lower": False, "seed": 0},
    "model": {"labels": 0},
    "process": {"name": "masked", "prediction": "epsilon", "factor": 1.0},
    "objective": {"prompt_dropout": 0.1, "noise": 0.5, "label_smoothing": 0.0},
    "evaluate": {"points": 100},
    "sample": {
        "memory": "reuse",
        "cache": False,
        "label": -1,
        "repeats": 1,
        "infill": 0,
        "remask": dict(
            rule="cap",
            eta=0.008,
            schedule="process",
            on=1.0,
            off=0.0,
            level=0.1,
            temperature=1.0,
            adaptive=False,
            planner=False,
        ),
        "gaussian": GAUSSIAN,
        "source": "",
        "translation": TRANSLATION,
    },
}
HOUSEKEEPING = {"train": ("log_every", "checkpoint_every", "keep"), "data": ("cache_dir",)}


@dataclass(frozen=True)
class Job:
    """One unit of work.

    `needs` are the ids of jobs that must be done first, by what they give: the weights that training starts from
    (`start`), those that are evaluated or sampled (`weights`), the row that scores samples (`scorer`), and the one
    whose likelihoods are labels (`judge`).
    """

    id: str
    verb: str
    row: str
    seed: int
    needs: dict[str, str]
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


def to_json(config: ConfigDict) -> dict:
    """The config as JSON data, tuples as lists."""
    return json.loads(json.dumps(config.to_dict()))


def read_config(folder: Path) -> ConfigDict:
    """The config of a job that is done; fields that came after it have their defaults."""

    def merged(old: dict, new: dict) -> dict:
        both = {key: merged(old[key], value) if isinstance(old.get(key), dict) else value for key, value in new.items()}
        return old | both

    stored = json.loads((folder / "config.json").read_text())
    return ConfigDict(merged(to_json(defaults(stored["table"], stored["variant"])), stored))


def train_identity(config: ConfigDict) -> dict:
    """The part of a config that decides what is trained."""
    given = to_json(config)
    parts = {name: counted(given, name) for name in SECTIONS}
    for section, names in HOUSEKEEPING.items():
        parts[section] = {key: value for key, value in parts[section].items() if key not in names}
    parts |= {name: given[name] for name in own_sections(config) if name in given}
    if config.codec.digits == 1:
        del parts["codec"]
    if config.memory.adapter == "none":
        del parts["memory"]
    if config.predictor.kind != "none":
        parts["predictor"] = given["predictor"]
    return parts


def counted(config: dict, section: str) -> Any:
    """A section of a plain config as far as it counts."""
    value, later = config[section], LATER.get(section, {})
    return {key: given for key, given in value.items() if later.get(key, ...) != given} if later else value


def job_id(verb: str, row: str, identity: object) -> str:
    """A name that a reader recognizes and that no other config shares."""
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


def trains(config: ConfigDict) -> bool:
    """Whether a row's samples are of a network: held-out data stand in for them, exact models need no training."""
    return config.sample.policy != "data" and family_of(config).TRAINED


def train_jobs(
    rows: list[dict], table: ConfigDict, row: str, config: ConfigDict, behind: tuple[str, ...] = ()
) -> list[Job]:
    """The training that a row's config asks for, behind that of the row of the same table that it starts from.

    Where the config gives a checkpoint that is what training starts from, and no other row is trained for it. An error
    predictor that learns from a row's likelihoods needs that row too. `behind` are the rows that start from this one.

    Raises:
      ValueError: when rows start from each other in a circle, or a judge is not autoregressive.
    """
    before: list[Job] = []
    needs = {}
    check_learner(rows, row, config)
    identity = train_identity(config)
    if config.start and not config.checkpoint:
        base = find_row(rows, config.start, "start")
        if base["name"] in (*behind, row):
            raise ValueError(f"start: row {base['name']!r} starts from itself; name one that starts from nothing")
        resolved = resolve(table, base["overrides"], config.seed)
        before = train_jobs(rows, table, base["name"], resolved, (*behind, row))
        needs["start"] = identity["start"] = before[-1].id
    if config.predictor.kind != "none" and config.predictor.labels == "likelihood":
        judging = find_row(rows, config.predictor.judge, "predictor.judge")
        # A checkpoint is of the denoiser.
        resolved = resolve(table, judging["overrides"] | {"checkpoint": ""}, config.seeds[0])
        if judging["name"] in (*behind, row) or not family_of(resolved).CAUSAL:
            raise ValueError(f"predictor.judge: row {judging['name']!r} is not autoregressive; name one that is")
        before += train_jobs(rows, table, judging["name"], resolved, (*behind, row))
        needs["judge"] = identity["judge"] = before[-1].id
    # Named by the model, not by the row: rows that share a network share the job.
    name = f"{config.objective.name}-{config.data.source}"
    return [*before, Job(job_id("train", name, identity), "train", row, config.seed, needs, to_json(config))]


def check_learner(rows: list[dict], row: str, config: ConfigDict) -> None:
    """Raise ValueError for a row that is given an error predictor which it does not train.

    A kind on the command line does so: it reaches all rows, those too that predictors start from.
    """
    kind = config.predictor.kind
    own = [repr(each["name"]) for each in rows if "predictor.kind" in each["overrides"]]
    if kind == "none" or config.objective.name == "errors" or repr(row) in own:
        return
    instead = f"rows with a predictor of their own are {', '.join(own[:3])}" if own else "no row here has a predictor"
    raise ValueError(
        f"predictor.kind: {kind!r} reaches every row, and {row!r} trains no predictor; leave it out and choose the "
        f"row: {instead}"
    )


def find_row(rows: list[dict], name: str, field: str = "row") -> dict:
    """The row called `name`, as `field` wants; raises ValueError that lists the known ones."""
    for row in rows:
        if row["name"] == name:
            return row
    raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(repr(row['name']) for row in rows)}")


def without(settings: dict, given: dict) -> dict:
    """A row's settings but for those that the command line gives."""
    return {key: value for key, value in settings.items() if key not in given}


def judge_jobs(rows: list[dict], config: ConfigDict, judge: ConfigDict | None = None) -> list[Job]:
    """The training of the judge (the table's, unless a row has its own), where it is a row of this table.

    It is always that row's first seed. A checkpoint is of the network that is judged.
    """
    options = config.judge if judge is None else judge
    if options.name not in ("row", "classifier"):
        return []
    row = find_row(rows, options.row, "judge.row")
    return train_jobs(
        rows, config, row["name"], resolve(config, row["overrides"] | {"checkpoint": ""}, config.seeds[0])
    )


def plan(rows: list[dict], config: ConfigDict, known: list[dict] | None = None) -> list[Job]:
    """All jobs of a table's rows, in an order in which each comes after what it needs.

    A row is a dict: its `name`, its `overrides` of config fields, and the `verbs` (evaluate, sample) to run for it;
    with `seeds` it takes only so many of the table's seeds, the first ones. Rows that others start from, or are judged
    by, are looked up among `known` (these rows themselves). With a checkpoint a row is not trained, unless it starts
    from another row, whose place the checkpoint takes, or training is what it is for.
    """
    jobs: dict[str, Job] = {}
    known = known or rows
    for row in rows:
        for seed in config.seeds[: row.get("seeds")]:
            resolved = resolve(config, row["overrides"], seed)
            identity, needs, given = train_identity(resolved), {}, to_json(resolved)
            trained = resolved.start or "train" in row["verbs"] or not resolved.checkpoint
            if trained and trains(resolved):
                trainings = train_jobs(known, config, row["name"], resolved)
                jobs |= {job.id: job for job in trainings if job.id not in jobs}
                needs["weights"] = trainings[-1].id
                # What was trained from a checkpoint is not the checkpoint itself.
                start = resolved.checkpoint or trainings[-1].needs.get("start")
                identity |= {"start": start} if start else {}
            for verb in (verb for verb in row["verbs"] if verb != "train"):
                needed, part = dict(needs), [identity, counted(given, verb)]
                if verb == "sample":
                    judges = [] if resolved.judge.name == "none" else judge_jobs(known, config, resolved.judge)
                    part += [given["judge"], given["quality"]]
                    jobs |= {job.id: job for job in judges if job.id not in jobs}
                    if judges:
                        needed["scorer"] = judges[-1].id
                        part.append(judges[-1].id)
                    part += [content(resolved.sample.source)] if resolved.sample.source else []
                job = Job(job_id(verb, row["name"], part), verb, row["name"], seed, needed, given)
                jobs[job.id] = job
    order = {"train": 0, "evaluate": 1, "sample": 2}
    return sorted(jobs.values(), key=lambda job: (order[job.verb], len(job.needs) if job.verb == "train" else 0))


def content(file: str) -> str:
    """A hash of a user's file, which may change under its name; empty for one that is not there."""
    path = Path(file).expanduser()
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def write_plan(jobs: list[Job]) -> str:
    """Jobs as JSON lines."""
    return "".join(json.dumps(asdict(job)) + "\n" for job in jobs)


def read_plan(path: Path, index: int | None = None) -> list[Job]:
    """Jobs from JSON lines, all of them or the one of that number.

    Raises:
      ValueError: naming the line that is not a job, or a number that no job has.
    """
    if not path.is_file():
        raise ValueError(f"jobs: {path} is no file; write it with `launch.py plan --config=... > {path}`")
    jobs = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            jobs.append(Job(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            message = f"jobs: line {number} of {path} is not a job; write it anew with `launch.py plan`"
            raise ValueError(message) from error
    if index is None:
        return jobs
    if not 0 <= index < len(jobs):
        raise ValueError(f"index: {index} is not among the {len(jobs)} jobs of {path}, 0 to {len(jobs) - 1}")
    return [jobs[index]]


def atomic_write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    partial.replace(path)
