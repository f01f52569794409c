"""Comparison of a run with committed rows: worked numbers, and the verdicts."""

import math

import pytest

from diffusion.report.tables import Column
from experiments import machines
from experiments.reproduced import compare, comparisons, report
from tests.checks import refused

COLUMN = Column("nats", "nats per token", ".2f")


def rows(name, values, key="nats"):
    numbered = enumerate(values)
    return [{"job": f"job {seed}", "row": name, "seed": seed, "metrics": {key: value}} for seed, value in numbered]


def test_the_difference_is_in_units_of_the_prediction_interval():
    """s = 0.1 over three seeds; one new seed: 0.1 sqrt(1 / 3 + 1) = 0.11547; t_2 at 99 % is 9.925."""
    found = compare(COLUMN, "MDLM", [2.3], [1.9, 2.0, 2.1])
    assert found.deviations == pytest.approx(0.3 / (0.1 * math.sqrt(4 / 3)))
    assert found.limit == pytest.approx(9.925, abs=1e-3) and found.verdict == "reproduced"
    assert compare(COLUMN, "MDLM", [3.3], [1.9, 2.0, 2.1]).verdict == "differs"


def test_the_spread_of_machines_widens_the_interval():
    """u^2 = mean(d^2) / 2 for differences 0.2 and -0.4 of the same seeds, so that 2 u^2 = 0.1."""
    committed = rows("MDLM", [1.9, 2.0, 2.1])
    others = [
        {"machine": name, "job": f"job {seed}", "row": "MDLM", "seed": seed, "metrics": {"nats": value}}
        for name, seed, value in (("A", 0, 2.1), ("B", 1, 1.6), ("B", 7, 9.0))
    ]
    found = machines.differences("MDLM", "nats", others, committed)
    assert found == pytest.approx([0.2, -0.4]) and 2 * machines.deviation(found) ** 2 == pytest.approx(0.1)
    compared = compare(COLUMN, "MDLM", [2.3], [1.9, 2.0, 2.1], machines.deviation(found))
    assert compared.deviations == pytest.approx(0.3 / math.sqrt(0.01 * 4 / 3 + 0.1))
    sentence = machines.note([COLUMN], ["MDLM"], others, committed)
    assert sentence == "The same seed on other machines (A; B) differs by at most: nats per token 0.40 (MDLM)."
    assert machines.note([COLUMN], ["MDLM"], [], committed) == ""


def test_rows_of_a_machine_are_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(machines, "FOLDER", tmp_path)
    with refused("machines: no rows of quickstart.local"):
        machines.add("quickstart.local", "AVX2", [])
    for value in (1.0, 2.0):
        machines.add("quickstart.local", "AVX2", [{"row": "AR", "seed": 0, "metrics": {"nats": value}, "history": []}])
    assert machines.read("quickstart.local") == [{"machine": "AVX2", "row": "AR", "seed": 0, "metrics": {"nats": 2.0}}]


def test_metrics_without_spread_are_equal_or_not_judged():
    assert compare(COLUMN, "MDLM", [9.0], [9.0, 9.0]).verdict == "reproduced"
    assert compare(COLUMN, "MDLM", [9.5], [9.0, 9.0]).verdict.startswith("not judged")


def test_one_committed_seed_judges_only_what_is_equal():
    assert compare(COLUMN, "MDLM", [9.0], [9.0]).verdict == "reproduced"
    assert compare(COLUMN, "MDLM", [9.1], [9.0]).verdict.startswith("not judged")


def test_times_and_metrics_of_one_side_are_left_out():
    time = Column("seconds_per_sample", "s/sample")
    here = rows("MDLM", [1.0]) + rows("MDLM", [1.0], time.key) + rows("New row", [1.0])
    committed = rows("MDLM", [1.0, 1.1]) + rows("MDLM", [9.0, 9.1], time.key)
    assert [(each.row, each.column.key) for each in comparisons([COLUMN, time], here, committed, [])] == [
        ("MDLM", "nats")
    ]


def test_the_report_counts_and_shows_what_differs():
    committed = rows("MDLM", [1.0, 1.1, 1.2]) + rows("AR", [1.0, 1.1, 1.2])
    text = report([COLUMN], rows("MDLM", [5.0]) + rows("AR", [1.0]), committed, [], "x")
    assert "Compared with x: 1 of 2 figures reproduced, 1 differ" in text and "MDLM" in text and "AR " not in text
    assert report([COLUMN], rows("MDLM", [5.0]), [], [], "x") == ""
