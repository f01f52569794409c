"""Claims of FastDiSS on constructed rows."""

import pytest

from experiments.few_steps import report


def take_rows(name, bleu, seconds, seeds=3):
    """Return rows of several seeds, with differences of 0.1."""
    return [
        {
            "row": name,
            "verb": "sample",
            "seed": seed,
            "metrics": {"bleu": bleu + 0.1 * seed * (1 + ("MANS" in name)), "seconds_per_sentence": seconds},
        }
        for seed in range(seeds)
    ]


ROWS = [
    *take_rows("standard, 5 steps", 60.0, 0.005),
    *take_rows("standard, 20 steps", 65.0, 0.02),
    *take_rows("standard, 100 steps", 84.0, 0.1, seeds=1),
    *take_rows("standard, 5 steps, recompute", 99.0, 0.01),
    *take_rows("MANS, 5 steps", 79.0, 0.005),
    *take_rows("MANS and SCP, 1 step", 61.0, 0.001),
    *take_rows("MANS and SCP, 5 steps", 80.0, 0.005),
    *take_rows("random shift, 5 steps", 70.0, 0.005),
]


def test_claims_are_differences_over_seeds_and_ratios_of_wall_time():
    """Differences are 20, 20.1, 20.2: half the interval is 4.303 standard errors of 0.1 / sqrt(3)."""
    lines = report(ROWS)
    assert lines[0] == "MANS and SCP, 5 steps - standard, 20 steps: +15.10 [+14.85, +15.35], 3 seeds"
    assert "FastDiSS over its base, 5 steps (MANS and SCP - standard): +20.10 [+19.85, +20.35], 3 seeds" in lines
    assert "SCP beside MANS, 5 steps (MANS and SCP - MANS): +1.00 [+1.00, +1.00], 3 seeds" in lines
    assert not any(line.startswith("SCP over its base") for line in lines), "there is no row with SCP only"
    assert lines[-3:] == [
        "standard, 5 steps (bleu 60.10, 5.00 ms per sentence): reached by MANS and SCP, 1 step (61.20, 1.00 ms), 5 "
        "times fewer steps, 5 times less wall time",
        "standard, 20 steps (bleu 65.10, 20.00 ms per sentence): reached by MANS and SCP, 5 steps (80.20, 5.00 ms), 4 "
        "times fewer steps, 4 times less wall time",
        "standard, 100 steps (bleu 84.00, 100.00 ms per sentence): reached by no row of MANS and SCP",
    ]


def test_rows_of_one_seed_have_no_interval():
    lines = report(ROWS, many=100)
    assert lines[0] == "MANS and SCP, 5 steps - standard, 100 steps: -3.80 (one seed)"


def test_table_without_the_method_raises():
    with pytest.raises(ValueError, match="table: no row 'Tatoeba: MANS and SCP'; run the whole table"):
        report(ROWS, prefix="Tatoeba: ")
