"""New ids for the jobs of a work directory of identity 1: `launch.py plan --migrate=WORKDIR`.

Identity 1 hashed whole sections, without fields that were newer than stored jobs and had their default. The jobs that a
job needs are not stored: they are those with which its name is the hash of its config. `identity_1.json` holds the
defaults of identity 1, for fields that a config lacks or that were deleted since; it does not change.
"""

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ml_collections import ConfigDict

from diffusion.storage import atomic_write
from experiments import contents
from experiments.checks import check_names
from experiments.identity import (
    contents_of,
    default_fields,
    differences,
    digest,
    files,
    identity,
    job_fields,
    job_id,
    to_json,
    training_fields,
)
from experiments.layout import write_layout
from experiments.plan import merged, trains
from experiments.results import read_result, write_result

# Fields that counted only where they differed from their default.
LATER = {
    "data": ("validation_images", "source_length", "reverse", "lower", "seed"),
    "model": ("labels",),
    "process": ("name", "prediction", "factor"),
    "objective": ("prompt_dropout", "noise", "label_smoothing"),
    "evaluate": ("points",),
    "sample": ("memory", "cache", "label", "repeats", "infill", "remask", "gaussian", "source", "translation"),
}
ID = re.compile(r"(train|evaluate|sample)-[a-z0-9-]+-[0-9a-f]{10}")


@dataclass(frozen=True)
class Ids:
    """Old and new id of a job with the jobs that it needs; the new one is computed where it is asked for."""

    old: str
    make_new: Callable[[], str]
    needs: dict[str, "Ids"]

    @functools.cached_property
    def new(self) -> str:
        """Id of this version."""
        return self.make_new()


def run(workdir: Path) -> None:
    """Rename the folders of jobs that have an old id, and print a line for each folder.

    Raises:
      ValueError: for a work directory without jobs, or a folder whose config cannot be read; nothing is renamed then.
    """
    folders = sorted(each for each in (workdir / "jobs").glob("*") if each.is_dir())
    if not folders:
        raise ValueError(f"--migrate: {workdir} holds no jobs; pass a work directory, such as --migrate=runs")
    contents.reread()
    configs = {folder: read(folder) for folder in folders}
    found = identify(configs)
    names = {ids.old: ids.new for folder, ids in found.items() if not deleted_field(configs[folder])}
    for folder, config in configs.items():
        print(rename(folder, config, found.get(folder), names))
    for rows in filter(Path.is_file, (workdir / "tables").glob("*/rows.jsonl")):
        # Ids are ASCII, whatever else a damaged file holds.
        atomic_write(rows, with_new_ids(rows.read_bytes().decode("latin-1"), names).encode("latin-1"))
    write_layout(workdir)


@functools.cache
def old_defaults() -> dict:
    """Defaults of identity 1."""
    return json.loads(Path(__file__).with_name("identity_1.json").read_text())


def read(folder: Path) -> ConfigDict:
    """Config of a job with all fields of identity 1; raises ValueError where there is none."""
    try:
        config = ConfigDict(merged(old_defaults(), json.loads((folder / "config.json").read_text())))
        job_fields(to_json(config), verb_of(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise ValueError(f"--migrate: {folder} is not a job ({problem}); restore its config.json or move it") from None
    return config


def verb_of(folder: Path) -> str:
    """Verb of the job of a folder."""
    return folder.name.partition("-")[0]


def identify(configs: dict[Path, ConfigDict]) -> dict[Path, Ids]:
    """The ids of the jobs whose folder has one of them as its name, by folder."""
    found: dict[Path, Ids] = {}
    trainings = {folder: config for folder, config in configs.items() if verb_of(folder) == "train"}
    while new := {
        folder: ids
        for folder, config in trainings.items()
        if folder not in found and (ids := match(folder.name, training_ids(config, list(found.values()))))
    }:
        found |= new  # the next ones may start from these
    known = list(found.values())
    for folder in configs.keys() - trainings.keys():
        if ids := match(folder.name, job_ids(folder, configs[folder], known)):
            found[folder] = ids
    return found


def match(name: str, candidates: Iterable[Ids]) -> Ids | None:
    """The ids of which one is the name."""
    candidates = list(candidates)
    by_old = (ids for ids in candidates if ids.old == name)
    return next(by_old, None) or next((ids for ids in candidates if ids.new == name), None)


def training_ids(config: ConfigDict, known: list[Ids]) -> Iterator[Ids]:
    """The ids of the training of a config, for all jobs that it may start or learn from."""
    starts = known if config.start and not config.checkpoint else [None]
    judges = known if config.predictor.kind != "none" and config.predictor.labels == "likelihood" else [None]
    name = f"{config.objective.name}-{config.data.source}"
    for start, judge in itertools.product(starts, judges):
        needs = {role: ids for role, ids in (("start", start), ("judge", judge)) if ids}
        old = old_training(config) | {role: ids.old for role, ids in needs.items()}
        prefix = job_id("train", name, old).rpartition("-")[0]
        yield ids_of(prefix, config, old, needs)


def job_ids(folder: Path, config: ConfigDict, known: list[Ids]) -> Iterator[Ids]:
    """The ids of an evaluation or of samples, for all jobs that it may need."""
    verb, fields, olds = verb_of(folder), to_json(config), {ids.old for ids in known}
    weights: list[Ids | None] = [None]
    if trains(config):
        weights = [ids for ids in training_ids(config, known) if not ids.needs or ids.old in olds]
        weights += [None] if config.checkpoint and not config.start else []
    scorers = known if verb == "sample" and config.judge.name in ("row", "classifier") else [None]
    for weight, scorer in itertools.product(weights, scorers):
        needs = {role: ids for role, ids in (("weights", weight), ("scorer", scorer)) if ids}
        start = weight and (config.checkpoint or ("start" in weight.needs and weight.needs["start"].old))
        old = [old_training(config) | ({"start": start} if start else {}), old_section(fields, verb)]
        if verb == "sample":
            old += [fields["judge"], fields["quality"], *([scorer.old] if scorer else [])]
            old += [source_hash(config.sample.source)] if config.sample.source else []
        yield ids_of(folder.name.rpartition("-")[0], config, old, needs)


def old_training(config: ConfigDict) -> dict:
    """What identity 1 hashed of a training."""
    fields = training_fields(to_json(config))
    return {name: old_section(fields, name) for name in fields}


def old_section(fields: dict, section: str) -> object:
    """What identity 1 hashed of a section."""
    part, default = fields[section], old_defaults()[section]
    later = [key for key in LATER.get(section, ()) if not differences({key: part[key]}, {key: default[key]})]
    return {key: value for key, value in part.items() if key not in later} if later else part


def source_hash(file: str) -> str:
    """Hash of a user's file of sources under identity 1; empty for a missing file."""
    path = Path(file).expanduser()
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def ids_of(prefix: str, config: ConfigDict, old: object, needs: dict[str, Ids]) -> Ids:
    """The ids of a job whose name begins with `prefix`, which identity 1 hashed as `old`."""

    def new() -> str:
        now = identity(config_now(config), prefix.partition("-")[0], {role: ids.new for role, ids in needs.items()})
        return f"{prefix}-{digest(now)}"

    return Ids(f"{prefix}-{digest(old)}", new, needs)


def config_now(config: ConfigDict) -> dict:
    """The fields of a config without the fields that were deleted since and had their default."""

    def kept(fields: dict, default: dict, known: dict) -> dict:
        result = {}
        for key, value in fields.items():
            if key in known and isinstance(value, dict) and isinstance(known[key], dict):
                result[key] = kept(value, default.get(key, {}), known[key]) if known[key] else value
            elif key in known or value != default.get(key):
                result[key] = value
        return result

    return kept(to_json(config), old_defaults(), default_fields())


def deleted_field(config: ConfigDict) -> str:
    """Names a field that was deleted since and that differs from its default; empty where there is none."""
    try:
        check_names(merged(default_fields(), config_now(config)), default_fields())
    except ValueError as error:
        return str(error)
    return ""


def rename(folder: Path, config: ConfigDict, ids: Ids | None, names: dict[str, str]) -> str:
    """Give a folder its new name and its result the new ids; returns the line that says so."""
    if ids is None:
        return f"left {folder.name}: this is not the hash of its config and of the jobs here that it needs"
    if ids.new == folder.name:
        return f"kept {folder.name}"
    if problem := deleted_field(config):
        return f"left {folder.name}: {problem}"
    target, now = folder.with_name(ids.new), config_now(config)
    if target.exists():
        return f"left {folder.name}: {ids.new} exists"
    verb, result = verb_of(folder), folder / "result.json"
    if result.is_file():
        row = json.loads(with_new_ids(json.dumps(read_result(folder)), names))
        hashes = contents_of(now, verb)
        row |= {"contents": hashes} if hashes else {}
        write_result(folder, row)
    folder.rename(target)
    absent = sorted({path for _, _, path in files(job_fields(now, verb)) if not contents.content_hash(path)})
    note = f" ({', '.join(absent)} is not here: the path counts)" if absent else ""
    return f"{folder.name} -> {ids.new}{note}"


def with_new_ids(text: str, names: dict[str, str]) -> str:
    """A text in which every old id is replaced by the new one."""
    return ID.sub(lambda found: names.get(found[0], found[0]), text)
