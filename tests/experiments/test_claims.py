"""Claims of LiDAR on constructed rows."""

import pytest

from experiments.claims import report


def row(name, sampler, overall, seconds, spread=0.01):
    sets = [{"overall": overall + shift} for shift in (-spread, 0.0, spread)]
    by_prompt = [[{"prompt": "a ring", "tag": "single_object", "correct": each["overall"]}] for each in sets]
    return {
        "row": name,
        "verb": "sample",
        "sampler": sampler,
        "config": {"model": {"net": "captioned_unet"}},
        "metrics": {"overall": overall, "seconds_per_prompt": seconds},
        "sets": sets,
        "by_prompt": by_prompt,
    }


ROWS = [
    row("base", "plain", 0.5, 1.0),
    row("gradient", "gradient", 0.6, 8.0),
    row("DATE", "condition", 0.7, 10.0),
    row("best of 2", "best_of", 0.62, 2.0),
    row("FK", "steering", 0.6, 1.1),
    row("LiDAR 9", "lidar", 0.71, 1.25),
    row("LiDAR 50", "lidar", 0.8, 2.5),
]


def test_cheapest_row_that_reaches_the_best_gradient_has_its_ratio():
    lines = report(ROWS)
    assert lines[0].startswith("Best gradient guidance: DATE, 0.700 in 10.00 s")
    assert lines[1].startswith("LiDAR 9 reaches it with 0.710 in 1.25 s, 8.0 times less; difference +0.010 [+0.010")
    assert any("LiDAR 9 (1.25 s) against best of 2 (2.00 s): +0.090" in line for line in lines)
    assert "No LiDAR row takes as little as FK (1.10 s)." in lines


def test_failed_claim_is_reported():
    weak = [each if each["sampler"] != "lidar" else row(each["row"], "lidar", 0.55, 2.0) for each in ROWS]
    assert report(weak)[1] == "No LiDAR row reaches it; the best is LiDAR 9 with 0.550 in 2.00 s."


def test_table_without_baselines_raises():
    with pytest.raises(ValueError, match="table: no row samples by condition"):
        report([each for each in ROWS if each["sampler"] != "condition"])
