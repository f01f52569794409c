"""Confidence intervals: known values of Student's, and their coverage."""

import numpy as np
import pytest
from scipy import stats

from diffusion.metrics.statistics import by_seed, mean_and_error, mean_over_sets, paired, student
from tests.checks import refused


def test_students_interval_of_known_numbers():
    """s = 1 and sqrt(3) = 1.732: 2 +- 4.303 * 0.577."""
    assert student([1, 2, 3]) == pytest.approx((2, 0.577350, 2 - 2.484138, 2 + 2.484138, 3), abs=1e-5)
    numbers = [594.2, 601.0, 588.8, 610.3, 597.1]
    assert student(numbers)[2:4] == pytest.approx(stats.t.interval(0.95, 4, *mean_and_error(numbers)))
    assert student([4, 4]) == (4, 0, 4, 4, 2)
    for bad in ([1.0], [1.0, np.nan]):
        with refused(r"seeds: an interval needs at least 2 finite numbers.*--config\.seeds"):
            student(bad)


def test_intervals_have_their_nominal_coverage():
    sets = np.random.default_rng(0).normal(3, 2, size=(1000, 4))
    held = [interval.low <= 3 <= interval.high for interval in map(student, sets)]
    # 0.95 within three standard errors of a share of 1,000.
    assert np.mean(held) == pytest.approx(0.95, abs=0.021)


def test_pairs_cancel_effects_of_the_seed():
    base = {0: 10.0, 1: 20.0, 2: 30.0}
    better = {2: 31.1, 0: 11.0, 1: 20.9}
    difference = paired(better, base)
    assert difference.mean == pytest.approx(1.0) and difference.low > 0.7 and difference.high < 1.3
    with refused(r"seeds \[0, 1\] and \[0, 2\] cannot be paired"):
        paired({0: 1.0, 1: 2.0}, {0: 1.0, 2: 2.0})


def test_rows_by_seed():
    cells = [("base", 1, 601), ("base", 0, 600), ("base", 2, None), ("other", 0, 1)]
    rows = [{"row": name, "seed": seed, "metrics": {"valid": value}} for name, seed, value in cells]
    assert by_seed(rows, "base", "valid") == {0: 600, 1: 601}
    with refused("two results of seed 1"):
        by_seed([*rows, rows[0]], "base", "valid")


def test_several_sets_are_their_mean_with_half_the_interval():
    """As `test_students_interval_of_known_numbers`: 2 +- 2.484 of 1, 2, 3."""
    sets = [{"valid": valid, "samples": 8} for valid in (1, 2, 3)]
    metrics = mean_over_sets([sets[0] | {"qed": 0.5}, sets[1] | {"only": 1.0}, sets[2] | {"qed": 0.5}])
    assert metrics.pop("valid_interval") == pytest.approx(2.484138, abs=1e-5)
    assert metrics == {"valid": 2, "samples": 8, "qed": 0.5, "only": 1.0}
    assert mean_over_sets(sets[:1]) == sets[0]
