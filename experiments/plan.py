"""Plans: the jobs that a table needs, training before evaluation and sampling, each named by what decides its result.

Rows and tables that need the same training share one job, and a completed job is not run again.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from ml_collections import ConfigDict

from configs.base import defaults
from configs.schema import LARGEST
from experiments import contents
from experiments.families import family_of
from experiments.identity import contents_of, identity, job_id, localized, to_json, train_identity
from experiments.stored import without_deleted

TABLE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Job:
    """One unit of work.

    `needs` holds the ids of the jobs to run before, by role: weights that training starts from (`start`), weights to
    evaluate or sample with (`weights`), scorer of samples (`scorer`), masked planner of a sampler (`planner`), model
    whose likelihoods are labels (`judge`), and samples to measure (`images`).
    `contents` holds the hashes of the user's files that entered the id, by path.
    """

    id: str
    verb: str
    row: str
    seed: int
    needs: dict[str, str]
    config: dict = field(repr=False)
    contents: dict[str, str] = field(default_factory=dict, repr=False)

    def folder(self, workdir: Path) -> Path:
        """Folder of the job's files."""
        return workdir / "jobs" / self.id

    def done(self, workdir: Path) -> bool:
        """Returns whether the result is complete."""
        return (self.folder(workdir) / "result.json").exists()


def read_config(folder: Path) -> ConfigDict:
    """Config of a completed job; fields that are newer have their defaults, and deleted ones are omitted.

    Raises:
      ValueError: for a config that is damaged.
    """
    file = folder / "config.json"
    try:
        found = json.loads(file.read_text())
    except (ValueError, RecursionError):
        found = {}
    try:
        stored = without_deleted(found)
        return ConfigDict(localized(merged(to_json(defaults(stored["table"], stored["variant"])), stored)))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"jobs: {file} is damaged; run the job again (`launch.py run --redo=ROW`)") from None


def merged(default: dict, stored: dict) -> dict:
    """The stored fields, and the defaults of those that are missing."""
    nested = {key for key in stored if isinstance(default.get(key), dict)}
    return default | stored | {key: merged(default[key], stored[key]) for key in nested}


def described(verb: str, name: str, row: str, config: ConfigDict, needs: dict[str, str]) -> Job:
    """The job of a config, whose id begins with `name`."""
    fields = to_json(config)
    key = job_id(verb, name, identity(fields, verb, needs))
    return Job(key, verb, row, config.seed, needs, fields, contents_of(fields, verb))


def resolve(config: ConfigDict, overrides: dict, seed: int) -> ConfigDict:
    """Config of one row and seed; raises ValueError for an override of an unknown field."""
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
    """Returns whether a row needs a trained network: exact models and held-out data need no training."""
    return config.sample.policy != "data" and family_of(config).TRAINED


def train_jobs(
    rows: list[dict], table: ConfigDict, row: str, config: ConfigDict, dependents: tuple[str, ...] = ()
) -> list[Job]:
    """Training of a row, after the training of the row of the same table that it starts from.

    With a checkpoint, training starts from it and no other row is trained. An error predictor that learns from the
    likelihoods of a row needs the training of that row too. `dependents` are the rows that start from this one.

    Raises:
      ValueError: for rows that start from each other, or a judge that is not autoregressive, whose network does not
        start from the mask, or that reads sub-tokens.
    """
    preceding: list[Job] = []
    needs = {}
    check_learner(rows, row, config)
    if config.start and not config.checkpoint:
        base = find_row(rows, config.start, "start")
        if base["name"] in (*dependents, row):
            raise ValueError(f"start: row {base['name']!r} starts from itself; name one that starts from nothing")
        resolved = resolve(table, base["overrides"], config.seed)
        preceding = train_jobs(rows, table, base["name"], resolved, (*dependents, row))
        needs["start"] = preceding[-1].id
    options = config.predictor
    if options.kind != "none" and options.labels == "likelihood" and options.judge != "gpt2":
        judge = find_row(rows, options.judge, "predictor.judge")
        # The checkpoint belongs to the denoiser, not to the judge.
        resolved = resolve(table, judge["overrides"] | {"checkpoint": ""}, config.seeds[0])
        if judge["name"] in (*dependents, row) or not family_of(resolved).CAUSAL:
            raise ValueError(f"predictor.judge: row {judge['name']!r} is not autoregressive; name one that is")
        if resolved.model.start != "mask":
            # Labels read the likelihood of every token but the first, from a network that starts from the mask.
            raise ValueError(f"model.start: row {judge['name']!r} judges tokens after a mask; set it to mask")
        if resolved.codec.digits > 1:
            raise ValueError(f"predictor.judge: row {judge['name']!r} reads sub-tokens; name one of whole tokens")
        preceding += train_jobs(rows, table, judge["name"], resolved, (*dependents, row))
        needs["judge"] = preceding[-1].id
    # The model names the job, because rows with the same network share it.
    name = f"{config.objective.name}-{config.data.source}"
    return [*preceding, described("train", name, row, config, needs)]


def check_learner(rows: list[dict], row: str, config: ConfigDict) -> None:
    """Raise ValueError for a row with an error predictor that the row does not train.

    A kind on the command line causes this, because it applies to all rows, also to those that predictors start from.
    """
    kind = config.predictor.kind
    predictors = [repr(each["name"]) for each in rows if "predictor.kind" in each["overrides"]]
    if kind == "none" or config.objective.name == "errors" or repr(row) in predictors:
        return
    known = (
        f"rows that train a predictor are {', '.join(predictors[:3])}" if predictors else "no row trains a predictor"
    )
    raise ValueError(
        f"predictor.kind: {kind!r} applies to every row, and {row!r} does not train a predictor; omit it and select "
        f"the row: {known}"
    )


def find_row(rows: list[dict], name: str, field: str = "row") -> dict:
    """Row called `name`, which `field` requests; raises ValueError with the names of the known rows."""
    for row in rows:
        if row["name"] == name:
            return row
    raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(repr(row['name']) for row in rows)}")


def without(settings: dict, overrides: dict) -> dict:
    """Settings of a row except those that the command line overrides."""
    return {key: value for key, value in settings.items() if key not in overrides}


def judge_jobs(rows: list[dict], config: ConfigDict, judge: ConfigDict | None = None) -> list[Job]:
    """Training of the judge, where it is a row of this table: the judge of the table, unless `judge` is another.

    The judge has the first seed for all samples. The checkpoint belongs to the model that is judged.
    """
    options = config.judge if judge is None else judge
    if options.name not in ("row", "classifier"):
        return []
    row = find_row(rows, options.row, "judge.row")
    return train_jobs(
        rows, config, row["name"], resolve(config, row["overrides"] | {"checkpoint": ""}, config.seeds[0])
    )


def is_trained(row: dict, config: ConfigDict) -> bool:
    """Whether a row is trained, and not the checkpoint itself."""
    return bool(config.start or "train" in row["verbs"] or not config.checkpoint) and trains(config)


def planner_jobs(rows: list[dict], table: ConfigDict, config: ConfigDict) -> list[Job]:
    """Training of the masked planner of a row of samples, with their seed; none where both are the checkpoint.

    Raises:
      ValueError: for a planner that has another network than the checkpoint.
    """
    name = config.sample.remask.get("planner_row")  # a row may have replaced the section
    if not name:
        return []
    row = find_row(rows, name, "sample.remask.planner_row")
    planner = resolve(table, row["overrides"], config.seed)
    if is_trained(row, planner):
        return train_jobs(rows, table, row["name"], planner)
    if train_identity(planner) != train_identity(config):
        raise ValueError(f"sample.remask.planner_row: {name!r} is not the network of the checkpoint; leave one out")
    return []


def plan(rows: list[dict], config: ConfigDict, known: list[dict] | None = None) -> list[Job]:
    """All jobs of the rows of a table, in an order in which each job follows the jobs that it needs.

    A row is a dict of its `name`, its `overrides` of config fields, and the `verbs` (train, evaluate, sample, geneval)
    to run; with `seeds` it uses only this number of the table's seeds, from the first. Rows that others start from, or
    that judge others, are taken from `known` (default: `rows`). With a checkpoint a row is not trained, unless it
    starts from another row, which the checkpoint then replaces, or its verbs include train.
    """
    check_seeds(config)
    check_table(config.table)
    contents.reread()
    jobs: dict[str, Job] = {}
    known = known or rows
    for row in rows:
        for seed in config.seeds[: row.get("seeds")]:
            resolved, needs = resolve(config, row["overrides"], seed), {}
            if is_trained(row, resolved):
                trainings = train_jobs(known, config, row["name"], resolved)
                jobs |= {job.id: job for job in trainings if job.id not in jobs}
                needs["weights"] = trainings[-1].id
            for verb in (verb for verb in row["verbs"] if verb != "train"):
                needed = dict(needs)
                if verb == "geneval":
                    drawn = (job for job in jobs.values() if job.row == row["name"] and job.seed == seed)
                    needed = {"images": next(job.id for job in drawn if job.verb == "sample")}
                if verb == "sample" and (judges := judge_jobs(known, config, resolved.judge)):
                    jobs |= {job.id: job for job in judges if job.id not in jobs}
                    needed["scorer"] = judges[-1].id
                if verb == "sample" and (planners := planner_jobs(known, config, resolved)):
                    jobs |= {job.id: job for job in planners if job.id not in jobs}
                    needed["planner"] = planners[-1].id
                job = described(verb, row["name"], row["name"], resolved, needed)
                jobs[job.id] = job
    order = {"train": 0, "evaluate": 1, "sample": 2, "geneval": 3}
    return sorted(jobs.values(), key=lambda job: (order[job.verb], len(job.needs) if job.verb == "train" else 0))


def check_seeds(config: ConfigDict) -> None:
    """Raise ValueError for no seeds, for what is no seed, or for the seed of a job, which the plan sets."""
    if not config.seeds:
        raise ValueError('seeds: empty; pass at least one, such as --config.seeds="(0,)"')
    if wrong := [seed for seed in config.seeds if type(seed) is not int or not 0 <= seed <= LARGEST]:
        raise ValueError(f'seeds: must be whole numbers from 0 to {LARGEST}, not {wrong[0]!r}; pass such as "(0, 1)"')
    if config.seed:
        raise ValueError(f'seed: the plan sets it, one job for each of seeds; pass --config.seeds="({config.seed},)"')


def check_table(name: str) -> None:
    """Raise ValueError for a table whose name is not that of a file."""
    if not TABLE.fullmatch(name):
        raise ValueError(f"table: {name!r} names files and folders; use letters, digits, '-' and '_'")
