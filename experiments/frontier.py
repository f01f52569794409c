"""Samples of a model compared with the temperature curve of another model.

    python -m experiments.frontier --rows=experiments/results/scmdm_text.local.jsonl \
        --base="MDLM, same tokens, 128 steps"

Generative perplexity decreases with better text and with lower entropy. The base sampled at several temperatures gives
a curve of perplexity against entropy. Every other row with the same steps is compared with this curve at its entropy,
by log(perplexity / curve) for each seed. Values below 0 mean better text than the base's at equal entropy.
"""

import math
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from absl import app, flags
from tabulate import tabulate

from diffusion.metrics.statistics import by_seed, student
from diffusion.report.rows import read_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("rows", None, "Rows of a table, JSON lines.")
flags.DEFINE_string("base", None, "Row whose temperatures form the curve.")
flags.DEFINE_string("match", "", "Regular expression of the rows to compare; empty: rows with the same steps.")

PERPLEXITY, ENTROPY = "generative_perplexity", "entropy"


def points(rows: list[dict], name: str) -> dict[int, tuple[float, float]]:
    """(entropy, log perplexity) of a row by seed."""
    entropies = by_seed(rows, name, ENTROPY)
    return {
        seed: (entropies[seed], math.log(value))
        for seed, value in by_seed(rows, name, PERPLEXITY).items()
        if seed in entropies
    }


def on_curve(name: str, base: str) -> bool:
    """Returns whether a row is the base at one of its temperatures."""
    return name == base or name.startswith(f"{base}, temperature ")


def curve(rows: list[dict], base: str) -> dict[int, list[tuple[float, float]]]:
    """Points of the base at all temperatures by seed, sorted by entropy.

    Raises:
      ValueError: for a base with samples at one temperature only.
    """
    names = dict.fromkeys(row["row"] for row in rows if on_curve(row["row"], base))
    curves: dict[int, list] = {}
    for name in names:
        for seed, point in points(rows, name).items():
            curves.setdefault(seed, []).append(point)
    if not any(len(curve) > 1 for curve in curves.values()):
        raise ValueError(f"--base: {base!r} has no temperatures other than 1 in these rows; name a row that has")
    return {seed: sorted(curve) for seed, curve in curves.items()}


def gaps(rows: list[dict], curves: dict[int, list[tuple[float, float]]], name: str) -> dict[int, float]:
    """log(perplexity / curve) at equal entropy, by seed, for seeds whose entropy the curve covers.

    Between temperatures the curve is linear in (entropy, log perplexity).
    """
    differences = {}
    for seed, (entropy, value) in points(rows, name).items():
        known = curves.get(seed, [])
        if len(known) > 1 and known[0][0] <= entropy <= known[-1][0]:
            entropies, levels = zip(*known, strict=True)
            differences[seed] = value - float(np.interp(entropy, entropies, levels))
    return differences


def compared(rows: Iterable[dict], base: str, match: str = "") -> list[str]:
    """Rows that `match` finds, by default those with the steps of the base; rows of its curve are excluded."""
    sampled = [row for row in rows if row["verb"] == "sample" and row["config"]["sample"]["policy"] != "data"]
    # Rows that fill gaps have neither perplexity nor entropy.
    sampled = [row for row in sampled if PERPLEXITY in row["metrics"]]
    steps = next((row["config"]["sample"]["steps"] for row in sampled if row["row"] == base), None)
    if steps is None:
        raise ValueError(f"--base: no samples of {base!r} among these rows")
    alike = [row["row"] for row in sampled if row["config"]["sample"]["steps"] == steps]
    names = [row["row"] for row in sampled if re.search(match, row["row"])] if match else alike
    causal = {row["row"] for row in sampled if row["config"]["model"]["causal"]}
    return [name for name in dict.fromkeys(names) if not on_curve(name, base) and name not in causal]


def main(arguments: list[str]) -> None:
    """Print the position of each row relative to the curve."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    try:
        rows = read_rows(Path(FLAGS.rows))
        if not rows:
            raise ValueError(f"--rows: no rows in {FLAGS.rows!r}; name a file of experiments/results")
        curves = curve(rows, FLAGS.base)
        lines = [describe(rows, curves, name) for name in compared(rows, FLAGS.base, FLAGS.match)]
    except ValueError as error:
        print(f"frontier: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    headings = ["row", "entropy (nats)", "gen. perplexity", "against the curve", "95 % interval over seeds"]
    print(f"curve: {FLAGS.base}, at all its temperatures\n")
    print(tabulate(lines, headings, disable_numparse=True))


def describe(rows: list[dict], curves: dict[int, list[tuple[float, float]]], name: str) -> list[str]:
    """Cells of one row: means over seeds, and the perplexity relative to the curve in percent."""
    entropy, perplexity = (list(by_seed(rows, name, key).values()) for key in (ENTROPY, PERPLEXITY))
    differences = list(gaps(rows, curves, name).values())
    line = [name, f"{statistics.fmean(entropy):.3f}", f"{statistics.fmean(perplexity):.2f}"]
    if not differences:
        return [*line, "outside", ""]
    if len(differences) == 1:
        return [*line, percent(differences[0]), "one seed"]
    interval = student(differences)
    return [
        *line,
        percent(interval.mean),
        f"[{percent(interval.low)}, {percent(interval.high)}] ({len(differences)} seeds)",
    ]


def percent(gap: float) -> str:
    """Log ratio as a signed percentage."""
    return f"{100 * math.expm1(gap):+.1f} %"


if __name__ == "__main__":
    # A requirement at import would apply to every program that imports this module.
    flags.mark_flags_as_required(["rows", "base"])
    app.run(main)
