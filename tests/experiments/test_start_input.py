"""Errors for rows with self-conditioning that start from rows or from a checkpoint: one line that names the field."""

import pytest

from configs import scmdm_text
from experiments.identity import to_json
from experiments.plan import Job, resolve
from experiments.run import prepare

DEBUG = "--config=configs/scmdm_text.py:debug"
FULL = "SCMDM, lambda 1"


@pytest.fixture
def config(fields):
    return resolve(scmdm_text.get_config("debug"), fields, 0)


INVALID = {
    "adapter": ("evaluate", {"memory.adapter": "gate"}, r"memory\.adapter: unknown 'gate'; known: linear, none"),
    "rate": ("train", {"memory.adapter": "linear", "memory.rate": 2.0}, r"memory\.rate: must lie in \[0, 1\], not 2"),
    "causal": (
        "train",
        {"memory.adapter": "linear", "model.causal": True, "model.adaln": False, "objective.name": "autoregressive"},
        r"memory\.adapter: goes with model\.net=dit or unet and model\.causal=False",
    ),
    "memory": ("sample", {"memory.adapter": "linear", "sample.memory": "other"}, r"sample\.memory: unknown 'other'"),
    "passes": (
        "evaluate",
        {"evaluate.also": ("bound_continuous_passes_2",)},
        r"evaluate\.estimator: bound_continuous_passes_2 is for a self-conditioned network; set memory\.adapter",
    ),
    "no passes": (
        "evaluate",
        {"memory.adapter": "linear", "evaluate.also": ("bound_continuous_passes_0",)},
        r"evaluate\.estimator: unknown name 'bound_continuous_passes_0'",
    ),
    "labels": ("train", {"model.labels": 3}, r"'text_files' has no labels"),
    "checkpoint": ("train", {"checkpoint": "/no/weights"}, r"checkpoint: /no/weights holds no weights"),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_fields_are_one_line_that_names_them(config, tmp_path, case):
    verb, fields, message = INVALID[case]
    job = Job("job", verb, "row", 0, {}, to_json(resolve(config, fields, 0)))
    with pytest.raises(ValueError, match=message) as caught:
        prepare(job, tmp_path)
    assert "\n" not in str(caught.value)


def test_training_without_validation_data_raises(config, tmp_path):
    (tmp_path / "short.txt").write_text("a line of a text\n" * 6)
    short = {"data.path": str(tmp_path / "short.txt"), "data.document": "file"}
    job = Job("job", "train", "row", 0, {}, to_json(resolve(config, short, 0)))
    with pytest.raises(
        ValueError, match=r"^data\.source: text_files has no 'validation' examples.*data\.length"
    ) as caught:
        prepare(job, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.start=Nobody"], "start: unknown 'Nobody'"),
        ([f"--config.start={FULL}"], "start: row 'SCMDM, lambda 1' starts from itself"),
        (["--config.memory.adapter=gate"], "memory.adapter: unknown 'gate'"),
        (["--config.memory.rate=2"], "memory.rate"),
        (["--config.checkpoint=/no/weights"], "checkpoint"),
    ],
    ids=["start", "chain", "adapter", "rate", "checkpoint"],
)
def test_errors_on_the_command_line_are_one_line(cli, fields, words, message):
    fields = [f"--config.{name}={value}" for name, value in fields.items()]
    status, out, err = cli("train", DEBUG, f"--row={FULL}", *fields, *words)
    lines = err.strip().splitlines()
    assert (status, out, len(lines)) == (2, "", 1), err
    assert lines[0].startswith("launch.py: ") and message in lines[0]
