"""Comparisons of constructed rows: known values, excluded rows, and errors for rows that cannot be compared."""

import inspect
import json
import math
from pathlib import Path

import pytest

from experiments.compare import fastdiss, frontier, lidar, paired
from experiments.compare.__main__ import KINDS, main, parser
from tests.checks import refused

PAIRED = [
    {"row": name, "seed": seed, "metrics": {"nats_per_token": value}}
    for name, values in {"First": (2.1, 3.2, 4.3), "Second": (2.0, 3.0, 4.0)}.items()
    for seed, value in enumerate(values)
] + [{"row": "One seed", "seed": 0, "metrics": {"nats_per_token": 1.0}}]


def test_differences_of_equal_seeds():
    """Differences are 0.1, 0.2, 0.3: the standard error is 0.1 / sqrt(3), half the interval 4.303 times that."""
    lines = paired.report(PAIRED, "First", "Second", "nats_per_token")
    assert lines == ["nats_per_token: First - Second = +0.200 ± 0.058, [-0.048, +0.448], 3 seeds"]


def test_rows_that_cannot_be_compared_raise():
    for names, metric, message in (
        (("First", "One seed"), "nats_per_token", r"seeds: rows of seeds \[0, 1, 2\] and \[0\] cannot be paired"),
        (("First", "Frist"), "nats_per_token", "row: 'Frist' has no nats_per_token; these have: 'First', 'Second'"),
        (("First", "Second"), "fid", "row: 'First' has no fid; these have: none"),
    ):
        with refused(message):
            paired.report(PAIRED, *names, metric)


def text(name, seed, entropy, perplexity, steps=128, policy="ancestral", causal=False):
    return {
        "row": name,
        "verb": "sample",
        "seed": seed,
        "metrics": {"entropy": entropy, "generative_perplexity": perplexity},
        "config": {"sample": {"steps": steps, "policy": policy}, "model": {"causal": causal}},
    }


BASE = "Base, 128 steps"
TEXTS = [
    text("Held-out text", 0, 2.9, 5.0, policy="data"),
    text("AR", 0, 2.9, 6.0, causal=True),
    *(text(BASE, seed, 3.0, math.exp(3.0 + seed)) for seed in (0, 1)),
    *(text(f"{BASE}, temperature 0.8", seed, 2.0, math.exp(1.0 + seed)) for seed in (0, 1)),
    # At entropy 2.5 the curve is at log perplexity 2 + seed.
    text("Better", 0, 2.5, math.exp(1.9)),
    text("Better", 1, 2.5, math.exp(2.7)),
    text("On the curve", 0, 2.25, math.exp(1.5)),
    text("Beyond it", 0, 3.5, 40.0),
    text(f"{BASE}, low precision", 0, 2.5, math.exp(2.0)),
    text("Other steps", 0, 2.5, 10.0, steps=16),
    text("Gaps", 0, 2.5, 1.0) | {"metrics": {"infill_exact": 0.5}},
]


def test_gaps_are_log_ratios_at_equal_entropy_for_each_seed():
    curves = frontier.temperature_curve(TEXTS, BASE)
    assert curves[1] == [(2.0, pytest.approx(2.0)), (3.0, pytest.approx(4.0))]
    differences = frontier.gaps(TEXTS, curves, "Better")
    assert differences[0] == pytest.approx(-0.1) and differences[1] == pytest.approx(-0.3)
    assert frontier.gaps(TEXTS, curves, "On the curve") == {0: pytest.approx(0.0)}
    assert frontier.gaps(TEXTS, curves, "Beyond it") == {}


def test_rows_with_the_same_steps_are_compared():
    assert frontier.compared(TEXTS, BASE) == ["Better", "On the curve", "Beyond it", f"{BASE}, low precision"]
    assert frontier.compared(TEXTS, BASE, "^Other|^On") == ["On the curve", "Other steps"]
    curves = frontier.temperature_curve(TEXTS, BASE)
    assert frontier.against_curve(TEXTS, curves, "Beyond it")[3] == "outside"
    line = frontier.against_curve(TEXTS, curves, "Better")
    assert line[3] == f"{100 * math.expm1(-0.2):+.1f} %" and "(2 seeds)" in line[4]
    assert len(frontier.report(TEXTS, BASE)[-1].splitlines()) == 6, "two lines of headings, and one for each row"
    with refused("--base: 'Better' has no temperatures"):
        frontier.report(TEXTS, "Better")
    with refused("--base: no samples of 'None'"):
        frontier.compared(TEXTS, "None")


def images(name, sampler, overall, seconds):
    sets = [{"overall": overall + shift} for shift in (-0.01, 0.0, 0.01)]
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


IMAGES = [
    images("base", "plain", 0.5, 1.0),
    images("gradient", "gradient", 0.6, 8.0),
    images("DATE", "condition", 0.7, 10.0),
    images("best of 2", "best_of", 0.62, 2.0),
    images("FK", "steering", 0.6, 1.1),
    images("LiDAR 9", "lidar", 0.71, 1.25),
    images("LiDAR 50", "lidar", 0.8, 2.5),
]


def test_cheapest_row_that_reaches_the_best_gradient_has_its_ratio():
    lines = lidar.report(IMAGES)
    assert lines[0].startswith("Best gradient guidance: DATE, 0.700 in 10.00 s")
    assert lines[1].startswith("LiDAR 9 reaches it with 0.710 in 1.25 s, 8.0 times less; difference +0.010 [+0.010")
    assert any("LiDAR 9 (1.25 s) against best of 2 (2.00 s): +0.090" in line for line in lines)
    assert "No LiDAR row takes as little as FK (1.10 s)." in lines


def test_failed_claims_and_missing_baselines_are_reported():
    weak = [each if each["sampler"] != "lidar" else images(each["row"], "lidar", 0.55, 2.0) for each in IMAGES]
    assert lidar.report(weak)[1] == "No LiDAR row reaches it; the best is LiDAR 9 with 0.550 in 2.00 s."
    with refused("table: no row samples by condition"):
        lidar.report([each for each in IMAGES if each["sampler"] != "condition"])


def pairs(name, bleu, seconds, seeds=3):
    """Return rows of several seeds, with differences of 0.1."""
    slope = 0.2 if "MANS" in name else 0.1
    metrics = [{"bleu": bleu + slope * seed, "seconds_per_sentence": seconds} for seed in range(seeds)]
    return [{"row": name, "verb": "sample", "seed": seed, "metrics": each} for seed, each in enumerate(metrics)]


PAIRS = [
    *pairs("standard, 5 steps", 60.0, 0.005),
    *pairs("standard, 20 steps", 65.0, 0.02),
    *pairs("standard, 100 steps", 84.0, 0.1, seeds=1),
    *pairs("standard, 5 steps, recompute", 99.0, 0.01),
    *pairs("MANS, 5 steps", 79.0, 0.005),
    *pairs("MANS and SCP, 1 step", 61.0, 0.001),
    *pairs("MANS and SCP, 5 steps", 80.0, 0.005),
    *pairs("random shift, 5 steps", 70.0, 0.005),
]


def test_claims_are_differences_over_seeds_and_ratios_of_wall_time():
    """Differences are 20, 20.1, 20.2: half the interval is 4.303 standard errors of 0.1 / sqrt(3)."""
    lines = fastdiss.report(PAIRS)
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
    lines = fastdiss.report(PAIRS, many=100)
    assert lines[0] == "MANS and SCP, 5 steps - standard, 100 steps: -3.80 (one seed)", "no interval"
    with refused("table: no row 'Tatoeba: MANS and SCP'; run the whole table"):
        fastdiss.report(PAIRS, prefix="Tatoeba: ")


def test_options_of_a_kind_are_those_of_its_report():
    options = vars(parser().parse_args(["fastdiss", "--few=3", "--prefix=Tatoeba: "]))
    assert options.pop("kind") == "fastdiss" and Path(options.pop("rows")).is_file()
    assert options == {"prefix": "Tatoeba: ", "metric": "bleu", "few": 3, "many": 20}
    assert options.keys() == inspect.signature(fastdiss.report).parameters.keys() - {"rows"}
    assert all(Path(table).is_file() for _, table in KINDS.values() if table)


def test_command_prints_a_comparison_or_one_line(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRED))
    main(["paired", f"--rows={path}", "--first=First", "--second=Second"])
    assert capsys.readouterr().out == "\n".join(paired.report(PAIRED, "First", "Second")) + "\n"
    for arguments, message in (
        ([], "the following arguments are required: KIND"),
        (["pared"], "invalid choice: 'pared'"),
        (["paired", f"--rows={path}", "--first=First"], "the following arguments are required: --second"),
        (["paired", f"--rows={path}", "--first=First", "--second=None"], "row: 'None' has no nats_per_token"),
        (["lidar", "--rows=nothing.jsonl"], "--rows: nothing.jsonl is not a file"),
        (["fastdiss", "--few=many"], "argument --few: invalid int value: 'many'"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        line = capsys.readouterr().err
        assert caught.value.code == 2 and line.startswith("compare: ") and line.count("\n") == 1 and message in line
