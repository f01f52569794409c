"""Samples compared with a temperature curve: known values, and excluded rows."""

import math

import pytest

from experiments.frontier import compared, curve, describe, gaps


def row(name, seed, entropy, perplexity, steps=128, policy="ancestral", causal=False):
    return {
        "row": name,
        "verb": "sample",
        "seed": seed,
        "metrics": {"entropy": entropy, "generative_perplexity": perplexity},
        "config": {"sample": {"steps": steps, "policy": policy}, "model": {"causal": causal}},
    }


BASE = "Base, 128 steps"
ROWS = [
    row("Held-out text", 0, 2.9, 5.0, policy="data"),
    row("AR", 0, 2.9, 6.0, causal=True),
    *(row(BASE, seed, 3.0, math.exp(3.0 + seed)) for seed in (0, 1)),
    *(row(f"{BASE}, temperature 0.8", seed, 2.0, math.exp(1.0 + seed)) for seed in (0, 1)),
    # At entropy 2.5 the curve is at log perplexity 2 + seed.
    row("Better", 0, 2.5, math.exp(1.9)),
    row("Better", 1, 2.5, math.exp(2.7)),
    row("On the curve", 0, 2.25, math.exp(1.5)),
    row("Beyond it", 0, 3.5, 40.0),
    row(f"{BASE}, low precision", 0, 2.5, math.exp(2.0)),
    row("Other steps", 0, 2.5, 10.0, steps=16),
    row("Gaps", 0, 2.5, 1.0) | {"metrics": {"infill_exact": 0.5}},
]


def test_gaps_are_log_ratios_at_equal_entropy_for_each_seed():
    curves = curve(ROWS, BASE)
    assert curves[1] == [(2.0, pytest.approx(2.0)), (3.0, pytest.approx(4.0))]
    differences = gaps(ROWS, curves, "Better")
    assert differences[0] == pytest.approx(-0.1) and differences[1] == pytest.approx(-0.3)
    assert gaps(ROWS, curves, "On the curve") == {0: pytest.approx(0.0)}
    assert gaps(ROWS, curves, "Beyond it") == {}


def test_rows_with_the_same_steps_are_compared():
    assert compared(ROWS, BASE) == ["Better", "On the curve", "Beyond it", f"{BASE}, low precision"]
    assert compared(ROWS, BASE, "^Other|^On") == ["On the curve", "Other steps"]
    curves = curve(ROWS, BASE)
    assert describe(ROWS, curves, "Beyond it")[3] == "outside"
    line = describe(ROWS, curves, "Better")
    assert line[3] == f"{100 * math.expm1(-0.2):+.1f} %" and "(2 seeds)" in line[4]


def test_base_without_temperatures_raises():
    with pytest.raises(ValueError, match="--base: 'Better' has no temperatures"):
        curve(ROWS, "Better")
    with pytest.raises(ValueError, match="--base: no samples of 'None'"):
        compared(ROWS, "None")
