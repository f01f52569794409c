"""Checks of a plan: what only `evaluate` and `sample` would find is found for the whole table before anything runs."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from configs import quickstart
from diffusion.data.arrays import SOURCES as ARRAYS
from diffusion.data.settings import DataSettings
from diffusion.data.sources import PAIRS, TEXTS
from diffusion.data.splits import md5_number
from diffusion.report.rows import read_rows
from experiments import run
from experiments.checks import check_plan, domain_of
from experiments.plan import plan
from experiments.tasks import TASKS
from tests.test_configs import TABLES

RESULTS = Path(run.__file__).parent / "results"


def planned(table, row="", **fields):
    """Return the jobs of a row of a table at debug scale, or of the whole table, with these fields (`__`: dot)."""
    module = importlib.import_module(f"configs.{table}")
    config = module.get_config("debug")
    overrides = {name.replace("__", "."): value for name, value in fields.items()}
    rows = [each | {"overrides": each["overrides"] | overrides} for each in module.rows(config)]
    return plan([each for each in rows if row in ("", each["name"])], config, rows)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_valid(table):
    check_plan(planned(table))


AR, TEXT, GSTAR = ("quickstart", "AR"), ("quickstart", "MDLM, ancestral, 2 steps"), ("gstar_text", "ancestral, 2 steps")
PAIR, IMAGE = ("fastdiss_translation", "MANS and SCP, 5 steps"), ("scmdm_images", "MDLM, same tokens, 4 steps")
WRONG = [
    # splits
    (AR, {"evaluate__split": "tset"}, "evaluate.split: unknown 'tset'; known: test, train, validation"),
    (PAIR, {"sample__translation__split": "tset"}, "sample.translation.split: unknown 'tset'"),
    (IMAGE, {"judge__reference": "tset"}, "judge.reference: unknown 'tset'"),
    # lengths
    (TEXT, {"sample__length": 77}, "sample.stride: "),
    (TEXT, {"sample__length": -1}, "sample.length: must not be negative, not -1"),
    (TEXT, {"sample__length": 48, "sample__stride": 5}, "sample.stride: 5 must divide"),
    (AR, {"sample__length": 48}, "sample.length: an autoregressive model writes data.length"),
    (TEXT, {"data__tokenizer": "bytes", "sample__prompt": "x" * 40}, "sample.prompt: 40 + 0 tokens leave nothing of"),
    (TEXT, {"data__tokenizer": "bytes", "sample__suffix": "é" * 20}, "sample.prompt: 0 + 40 tokens leave nothing of"),
    (AR, {"sample__suffix": "x"}, "sample.suffix: an autoregressive model"),
    (IMAGE, {"sample__prompt": "x"}, "sample.prompt: values of ready-made arrays have no text form"),
    (TEXT, {"sample__infill": 32}, "sample.infill: a span of 32 tokens"),
    (TEXT, {"sample__infill": 3, "sample__prompt": "x"}, "sample.infill: goes without"),
    (AR, {"sample__infill": 3}, "sample.infill: an autoregressive model"),
    (PAIR, {"sample__length": 1000}, "encoder_decoder.positions: 1000 tokens"),
    (PAIR, {"sample__prompt": "x"}, "sample.prompt, suffix and infill: pairs have sources"),
    # counts
    (TEXT, {"sample__count": 0}, "sample.count: must be at least 1, not 0"),
    (TEXT, {"sample__batch": 0}, "sample.batch: must be at least 1, not 0"),
    (TEXT, {"sample__repeats": 2}, "sample.repeats: text is measured as one set"),
    (IMAGE, {"sample__repeats": 0}, "sample.repeats: must be at least 1, not 0"),
    (PAIR, {"sample__repeats": 2}, "sample.repeats: translations are measured as one set"),
    (TEXT, {"sample__steps": 0}, "sample.steps: must be at least 1"),
    (TEXT, {"sample__source": "file"}, "sample.source: text has no sources"),
    (AR, {"evaluate__batch": 0}, "evaluate.batch: must be at least 1, not 0"),
    (AR, {"evaluate__draws": 0}, "evaluate.draws: must be at least 1, not 0"),
    (AR, {"evaluate__batches": -1}, "evaluate.batches: must be at least 0, not -1"),
    (AR, {"train__accumulate": 3}, "train.accumulate: 3 does not divide train.batch="),
    (("lidar_shapes", "exact: base"), {"sample__repeats": 0}, "sample.repeats: must be at least 1, not 0"),
    (("lidar_mixture", "none, DDPM"), {"sample__count": 0}, "sample.count: must be at least 1, not 0"),
    # sizes that divide
    (AR, {"model__heads": 3}, "heads"),
    (PAIR, {"encoder_decoder__heads": 3}, "heads"),
    (("lidar_shapes", "base"), {"captioned_unet__heads": (3, 3, 3)}, "heads"),
    (("lidar_shapes", "base"), {"captioned_unet__groups": 7}, "groups"),
    (("prime_images", "blobs, 1 digit"), {"unet__groups": 7}, "groups"),
    (("prime_images", "blobs, 1 digit"), {"unet__head_channels": 7}, "head"),
    # names
    (TEXT, {"sample__policy": "guess"}, "sample.policy: unknown 'guess'"),
    (TEXT, {"sample__final": "guess"}, "sample.final: unknown 'guess'"),
    (TEXT, {"judge__name": "guess"}, "judge.name: unknown 'guess'"),
    (IMAGE, {"judge__name": "guess"}, "judge.name: 'guess' cannot judge images"),
    (PAIR, {"sample__translation__solver": "guess"}, "sample.translation.solver: unknown 'guess'"),
    (("lidar_shapes", "base"), {"sample__gaussian__method": "guess"}, "sample.gaussian.method: unknown 'guess'"),
    (("lidar_shapes", "base"), {"sample__prompt": "a purple idea"}, "sample.prompt"),
    (("lidar_mixture", "none, DDPM"), {"sample__gaussian__solver": "guess"}, "sample.gaussian.solver: unknown 'guess'"),
    (AR, {"evaluate__estimator": "guess"}, "guess"),
    (AR, {"data__tokenizer": "guess"}, "data.tokenizer: unknown 'guess'"),
    (AR, {"data__source": "guess"}, "data.source: unknown 'guess'"),
    (AR, {"data__packing": "guess"}, "data.packing: unknown 'guess'"),
    (
        ("lidar_shapes", "base"),
        {"data__source": "wikitext"},
        "model.net: captioned_unet does not read data.source=wikitext",
    ),
    # dicts
    (AR, {"evaluate__zero_shot": {"ptb": {"source": "ptb", "pth": "x"}}}, "evaluate.zero_shot.ptb.pth: no such field"),
    (AR, {"evaluate__zero_shot": {"ptb": {"source": "pbt"}}}, "evaluate.zero_shot.ptb.source: unknown 'pbt'"),
    (TEXT, {"sample__remask": {"rule": "cap", "etta": 1.0}}, "sample.remask."),
    # rows of other rows
    (TEXT, {"judge__row": "MDLM, ancestral, 2 steps"}, "judge.row: 'MDLM, ancestral, 2 steps' is not autoregressive"),
]


@pytest.mark.parametrize(("place", "fields", "message"), WRONG, ids=lambda part: str(part)[:70])
def test_a_mistake_is_named_with_its_field_and_row(place, fields, message):
    with pytest.raises(ValueError) as caught:
        check_plan(planned(*place, **fields))
    text = str(caught.value)
    assert message in text and "(row '" in text and "\n" not in text, text


def test_every_source_has_a_kind():
    assert {domain_of(source) for source in (*TEXTS, *ARRAYS, *PAIRS)} == set(TASKS)
    with pytest.raises(ValueError, match=r"data\.source: unknown 'nothing'"):
        domain_of("nothing")


SETTINGS: dict[str, Any] = {"blobs": {"vocab_size": 8}, "simple_introns": {"length": 142}}


@pytest.mark.parametrize("source", ["density2d", "blobs", "simple_introns", "simple_molecules", "gaussian_mixture"])
def test_kinds_are_those_of_generated_sources(source):
    settings = DataSettings(source=source, **SETTINGS.get(source, {}))
    assert ARRAYS[source](settings).domain == domain_of(source)


def test_kinds_are_those_of_committed_samples():
    rows = [row for file in RESULTS.glob("*.jsonl") for row in read_rows(file) if "domain" in row]
    kinds = {(row["config"]["data"]["source"], row["domain"]) for row in rows}
    assert len(kinds) > 5 and all(domain_of(source) == domain for source, domain in kinds)


ABSENT = r"data\.source: text_files has no 'test' examples of length 32"


@pytest.mark.parametrize(
    ("row", "fields", "message"),
    [
        ("AR", {}, ABSENT),
        ("Held-out text", {}, ABSENT),
        ("MDLM, ancestral, 2 steps", {"quality.mauve": True}, ABSENT),
        ("MDLM, ancestral, 2 steps", {"sample.infill": 3}, ABSENT),
        (
            "AR",
            {"evaluate.split": "validation", "evaluate.zero_shot_required": True},
            r"evaluate\.zero_shot\.ptb\.path: ",
        ),
    ],
)
def test_missing_examples_are_found_before_anything_is_trained(row, fields, message, tmp_path):
    """The data are opened first, and their splits checked for all jobs."""
    validation, test, train = sorted(("a.txt", "b.txt", "c.txt"), key=md5_number)
    (tmp_path / "texts").mkdir()
    for name, count in ((validation, 100), (test, 1), (train, 400)):
        (tmp_path / "texts" / name).write_text("some words\n" * count)
    config = quickstart.get_config("debug")
    config.data.update(source="text_files", path=str(tmp_path / "texts"), tokenizer="bytes", vocab_size=257)
    if fields.get("evaluate.zero_shot_required"):
        config.evaluate.zero_shot = {"ptb": {"source": "ptb", "path": str(tmp_path / "texts")}}
    rows = [each | {"overrides": each["overrides"] | fields} for each in quickstart.rows(config)]
    jobs = plan([each for each in rows if each["name"] == row], config, rows)
    assert "train" in {job.verb for job in jobs}
    with pytest.raises(ValueError, match=message):
        run.run_jobs(jobs, tmp_path / "runs")
    assert not (tmp_path / "runs" / "jobs").exists()
