"""Identity of jobs: the hash of what decides their results.

That is the difference of a config from the defaults of `configs/base.py`, in the sections that the job reads; the
content of the user's files (see `experiments.contents`); and the jobs whose results it reads. A new field that has a
default renames no job. A changed default would keep ids silently; `tests/golden/test_defaults.py` holds all defaults.
"""

import copy
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs.base import defaults
from diffusion.data.sources import PAIRS
from diffusion.storage import copy_of, fetched_text, path_of, scratch
from experiments import contents

IDENTITY = 2  # increment where equal configs get other ids, and teach it to `experiments/migrate.py`
# These sections decide the result of a training; logging, meshes and folders do not.
SECTIONS = ("data", "codec", "model", "memory", "process", "objective", "optimizer", "train", "seed", "checkpoint")
HOUSEKEEPING = {
    "train": ("log_every", "checkpoint_every", "keep"),
    "data": ("cache_dir",),
    "text_to_image": ("images",),
}
# Fields that name a file or a folder of the user, beside those of `evaluate.zero_shot`.
FILES = (
    "data.path",
    "data.tokenizer_path",
    "codec.permutation",
    "checkpoint",
    "judge.checkpoint",
    "judge.tokenizer_path",
    "predictor.judge_checkpoint",
)
FILES += ("sample.source", "sample.translation.bertscore")
# Those below the folder of `weights`.
WEIGHTS = tuple(
    f"text_to_image.{name}" for name in ("pipeline", "unet", "image_reward", "bert", "clip", "hps", "aesthetic")
)
WEIGHTS += ("sample.gaussian.lookahead.weights", "sample.gaussian.lookahead.lora", "geneval.detector", "geneval.clip")


def digest(value: object) -> str:
    """Short hash of JSON data, equal in every process."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def to_json(config: ConfigDict) -> dict:
    """Config as JSON data, with lists for tuples."""
    return json.loads(json.dumps(config.to_dict()))


@functools.cache
def default_fields() -> dict:
    """All defaults as JSON data; a table and its variant name files alone."""
    return to_json(defaults("", "debug"))


def differences(fields: dict, default: dict) -> dict:
    """The fields that differ from their default, nested as they are; a field without a default differs."""
    changed: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            known = default.get(key)
            nested = differences(value, known if isinstance(known, dict) else {})
            changed |= {key: nested} if nested or key not in default else {}
        elif key not in default or value != default[key]:
            changed[key] = value
    return changed


def training_fields(fields: dict) -> dict:
    """The fields of a config that decide the result of a training, with their defaults and without unused sections.

    Sub-tokens have no settings where tokens are whole, nor has self-conditioning without an adapter, or an error
    predictor that is not there. Networks and objectives have sections of their name that no other one reads.
    """
    named = (fields["model"]["net"], fields["objective"]["name"])
    parts = {name: fields[name] for name in (*SECTIONS, *named, "predictor") if name in fields}
    predictor = parts.get("predictor", {})
    if (predictor.get("labels"), predictor.get("judge")) != ("likelihood", "gpt2"):
        # It may be given for the other rows of a table.
        parts["predictor"] = {name: part for name, part in predictor.items() if name != "judge_checkpoint"}
    for section, names in HOUSEKEEPING.items():
        if section not in parts:
            continue
        parts[section] = {key: value for key, value in parts[section].items() if key not in names}
    unused = {
        "codec": fields["codec"]["digits"] == 1,
        "memory": fields["memory"]["adapter"] == "none",
        "predictor": fields["predictor"]["kind"] == "none",
    }
    return {name: part for name, part in parts.items() if not unused.get(name)}


def train_identity(config: ConfigDict) -> dict:
    """What a config says of its training: the differences of its fields from the defaults."""
    return differences(training_fields(to_json(config)), default_fields())


def job_fields(fields: dict, verb: str) -> dict:
    """The fields of a config that decide the result of a job, with their defaults."""
    if verb == "geneval":
        return {name: fields[name] for name in ("geneval", "weights")}
    names = {"train": (), "evaluate": ("evaluate",), "sample": ("sample", "judge", "quality", "weights")}[verb]
    return training_fields(fields) | {name: fields[name] for name in names if name in fields}


def files(fields: dict) -> Iterator[tuple[dict, str, str]]:
    """The fields that name a user's file or folder, as (section, key, path that is read), without the empty ones."""
    for name in FILES:
        *sections, key = name.split(".")
        section = functools.reduce(lambda part, each: part.get(each, {}), sections, fields)
        if section.get(key):
            yield section, key, path_read(section, key)
    for name in WEIGHTS if fields.get("weights") else ():
        *sections, key = name.split(".")
        section = functools.reduce(lambda part, each: part.get(each, {}), sections, fields)
        if section.get(key):
            yield section, key, f"{fields['weights']}/{section[key]}"
    for section in fields.get("evaluate", {}).get("zero_shot", {}).values():
        yield from ((section, key, section[key]) for key in ("path", "tokenizer_path") if section.get(key))


def path_read(section: dict, key: str) -> str:
    """The path of a field; pairs are read from the subfolder of their source where there is one."""
    subfolder = f"{section[key]}/{section.get('source')}"
    pairs = key == "path" and section.get("source") in PAIRS
    return subfolder if pairs and contents.content_hash(subfolder) else section[key]


def localized(fields: dict) -> dict:
    """A config in which copies on this machine stand for the user's files in object stores."""
    if "://" not in json.dumps(fields):
        return fields
    fields = copy.deepcopy(fields)
    weights = fields.get("weights", "")
    for section, key, path in list(files(fields)):
        if weights and path == f"{weights}/{section[key]}":
            fetched_text(path)
        else:
            section[key] = fetched_text(section[key])
    fields["weights"] = str(copy_of(path_of(weights))) if "://" in weights else weights
    data = fields["data"]
    data["cache_dir"] = str(scratch(path_of(data["cache_dir"]))) if "://" in data["cache_dir"] else data["cache_dir"]
    return fields


def contents_of(fields: dict, verb: str) -> dict[str, str]:
    """Hashes of the content of all files that a job reads and that are present, by path."""
    hashes = {path: contents.content_hash(path) for _, _, path in files(job_fields(fields, verb))}
    return {path: each for path, each in hashes.items() if each}


def contents_below(fields: dict, verb: str) -> list[tuple[str, str]]:
    """Paths below the folder of weights that a job reads, with the hashes of their content."""
    return sorted(
        (path, each) for path, each in contents_of(fields, verb).items() if path.startswith(fields["weights"])
    )


def identity(fields: dict, verb: str, needs: dict[str, str]) -> dict:
    """What decides the result of the job of a config, whose `needs` are ids of other jobs, by role."""
    changed = differences(job_fields(fields, verb), default_fields())
    # Files below the folder of weights count although their usual names are defaults.
    weights = changed.pop("weights", "")
    for section, key, path in files(changed):
        section[key] = contents.content_hash(path) or section[key]
    if weights:
        changed["weights"] = {path.removeprefix(f"{weights}/"): each for path, each in contents_below(fields, verb)}
    return {"identity": IDENTITY, "fields": changed, "needs": needs}


def job_id(verb: str, name: str, identity: object) -> str:
    """Readable and unique name of a job: verb, name, and hash of `identity`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{verb}-{slug[:40]}-{digest(identity)}"
