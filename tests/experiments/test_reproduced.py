"""Comparison of a run with committed rows: worked numbers, and the verdicts."""

import math

import pytest

from diffusion.report.tables import Column
from experiments.reproduced import compare, comparisons, report

COLUMN = Column("nats", "nats per token", ".2f")


def rows(name, values, key="nats"):
    return [{"row": name, "metrics": {key: value}} for value in values]


def test_the_difference_is_in_units_of_the_prediction_interval():
    """s = 0.1 over three seeds; one new seed: 0.1 sqrt(1 / 3 + 1) = 0.11547; t_2 at 99 % is 9.925."""
    found = compare(COLUMN, "MDLM", [2.3], [1.9, 2.0, 2.1])
    assert found.deviations == pytest.approx(0.3 / (0.1 * math.sqrt(4 / 3)))
    assert found.limit == pytest.approx(9.925, abs=1e-3) and found.verdict == "reproduced"
    assert compare(COLUMN, "MDLM", [3.3], [1.9, 2.0, 2.1]).verdict == "differs"


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
    assert [(each.row, each.column.key) for each in comparisons([COLUMN, time], here, committed)] == [("MDLM", "nats")]


def test_the_report_counts_and_shows_what_differs():
    committed = rows("MDLM", [1.0, 1.1, 1.2]) + rows("AR", [1.0, 1.1, 1.2])
    text = report([COLUMN], rows("MDLM", [5.0]) + rows("AR", [1.0]), committed, "x")
    assert "Compared with x: 1 of 2 figures reproduced, 1 differ" in text and "MDLM" in text and "AR " not in text
    assert report([COLUMN], rows("MDLM", [5.0]), [], "x") == ""
