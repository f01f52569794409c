"""Checks of a plan: what only `evaluate` and `sample` would find is found for the whole table before anything runs."""

import importlib
import re
from pathlib import Path

import pytest

from configs import quickstart
from diffusion.data import captions
from diffusion.data.arrays import SOURCES as ARRAYS
from diffusion.data.settings import DataSettings
from diffusion.data.sources import PAIRS, TEXTS
from diffusion.data.splits import md5_number
from diffusion.report.rows import read_rows
from experiments import run
from experiments.checks import check_plan, domain_of
from experiments.plan import plan
from experiments.tasks import TASKS
from tests.checks import refused
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


AR, TEXT = ("quickstart", "AR"), ("quickstart", "MDLM, ancestral, 2 steps")
PAIR, SHAPES, PRIME = (
    ("fastdiss_translation", "MANS and SCP, 5 steps"),
    ("lidar_shapes", "base"),
    ("prime_images", "blobs, 1 digit"),
)
WRONG = [
    (AR, {"model__heads": 3}, "heads"),
    (PAIR, {"encoder_decoder__heads": 3}, "heads"),
    (SHAPES, {"captioned_unet__heads": (3, 3, 3)}, "heads"),
    (SHAPES, {"captioned_unet__groups": 7}, "groups"),
    (PRIME, {"unet__groups": 7}, "groups"),
    (PRIME, {"unet__head_channels": 7}, "head"),
    (SHAPES, {"data__source": "wikitext"}, "model.net: captioned_unet does not read data.source=wikitext"),
    (AR, {"evaluate__zero_shot": {"ptb": {"source": "ptb", "pth": "x"}}}, "evaluate.zero_shot.ptb.pth: no such field"),
    (AR, {"evaluate__zero_shot": {"ptb": {"source": "pbt"}}}, "evaluate.zero_shot.ptb.source: unknown 'pbt'"),
    (TEXT, {"sample__remask": {"rule": "cap", "etta": 1.0}}, "sample.remask."),
    (TEXT, {"judge__row": "MDLM, ancestral, 2 steps"}, "judge.row: 'MDLM, ancestral, 2 steps' is not autoregressive"),
]


@pytest.mark.parametrize(("place", "fields", "message"), WRONG)
def test_a_mistake_is_named_with_its_field_and_row(place, fields, message):
    with refused(rf"{re.escape(message)}.*\(row '{re.escape(place[1])}'\)"):
        check_plan(planned(*place, **fields))


def test_every_source_has_a_kind():
    assert {domain_of(source) for source in (*TEXTS, *ARRAYS, *PAIRS, *captions.SOURCES)} == set(TASKS)
    for source in ("blobs", "simple_introns", "simple_molecules", "gaussian_mixture"):
        settings = DataSettings(source=source, vocab_size=8, length=142)
        assert ARRAYS[source](settings).domain == domain_of(source)


def test_kinds_are_those_of_committed_samples():
    rows = [row for file in RESULTS.glob("*.jsonl") for row in read_rows(file) if "domain" in row]
    kinds = {(row["config"]["data"]["source"], row["domain"]) for row in rows}
    assert len(kinds) > 5 and all(domain_of(source) == domain for source, domain in kinds)


@pytest.mark.parametrize("row", ["AR", "Held-out text", "MDLM, ancestral, 2 steps"])
def test_missing_examples_are_found_before_anything_is_trained(row, tmp_path):
    """The data are opened first, and their splits checked for all jobs."""
    validation, test, train = sorted(("a.txt", "b.txt", "c.txt"), key=md5_number)
    (tmp_path / "texts").mkdir()
    for name, count in ((validation, 100), (test, 1), (train, 400)):
        (tmp_path / "texts" / name).write_text("some words\n" * count)
    config = quickstart.get_config("debug")
    config.data.update(source="text_files", path=str(tmp_path / "texts"), tokenizer="bytes", vocab_size=257)
    infilled = {"sample.infill": 3} if row.startswith("MDLM") else {}
    rows = [each | {"overrides": each["overrides"] | infilled} for each in quickstart.rows(config)]
    jobs = plan([each for each in rows if each["name"] == row], config, rows)
    assert "train" in {job.verb for job in jobs}
    with refused(r"data\.source: text_files has no 'test' examples of length 32"):
        run.run_jobs(jobs, tmp_path / "runs")
    assert not (tmp_path / "runs" / "jobs").exists()
