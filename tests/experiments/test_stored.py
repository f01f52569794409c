"""Stored configs with deleted fields: they are read where the behavior remains, and named otherwise."""

import json
from functools import reduce

import pytest

from configs.base import defaults
from experiments.plan import Job, read_config, to_json
from experiments.plan_files import read_plan, write_plan
from experiments.stored import DELETED
from tests.checks import refused

CONFIG = to_json(defaults("test", "debug"))


def with_field(name, value):
    """Return the config with one more field."""
    config = json.loads(json.dumps(CONFIG))
    *sections, field = name.split(".")
    reduce(dict.__getitem__, sections, config)[field] = value
    return config


def read(config, folder):
    """Return the config as it is read from a job, after a check that it is read equally from a plan."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "plan.jsonl").write_text(write_plan([Job("train-x-1", "train", "AR", 0, {}, config)]))
    fields = to_json(read_config(folder))
    assert read_plan(folder / "plan.jsonl")[0].config == fields
    return fields


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"table": "t", "variant": "debug", "sample": 1}', "[" * 100_000])
def test_a_damaged_config_is_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with refused(r"jobs: .*config\.json is damaged; run the job again"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", DELETED)
def test_deleted_fields_are_omitted_or_named(name, tmp_path):
    assert read(with_field(name, DELETED[name]), tmp_path) == CONFIG, "the field exists no more"
    with pytest.raises(ValueError, match=rf"^{name}: 'other' is not supported since the field was deleted"):
        read(with_field(name, "other"), tmp_path)


def test_stored_configs_without_newer_sections_are_read(tmp_path):
    older = {name: value for name, value in CONFIG.items() if name not in ("predictor", "embedding")}
    (tmp_path / "config.json").write_text(json.dumps(older))
    assert to_json(read_config(tmp_path)) == CONFIG
