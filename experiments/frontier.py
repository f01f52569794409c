"""Better text or sharper text: how far a model's samples lie off another's temperature curve.

    python -m experiments.frontier --rows=experiments/results/scmdm_text.local.jsonl \
        --base="MDLM, same tokens, 128 steps"

Generative perplexity falls when text gets better and when it gets sharper. The base sampled at several temperatures
gives a curve of perplexity against entropy; every other row of as many steps is compared with that curve at its own
entropy, log(perplexity / curve), for each seed by itself. Below 0 is better text than the base's at the same entropy.
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
flags.DEFINE_string("base", None, "Row whose temperatures make the curve.")
flags.DEFINE_string("match", "", "Regular expression of the rows to compare; empty: those of as many steps.")

PERPLEXITY, ENTROPY = "generative_perplexity", "entropy"


def points(rows: list[dict], name: str) -> dict[int, tuple[float, float]]:
    """(entropy, log perplexity) of a row, by seed."""
    entropies = by_seed(rows, name, ENTROPY)
    return {
        seed: (entropies[seed], math.log(value))
        for seed, value in by_seed(rows, name, PERPLEXITY).items()
        if seed in entropies
    }


def on_curve(name: str, base: str) -> bool:
    """Whether a row is the base at one of its temperatures."""
    return name == base or name.startswith(f"{base}, temperature ")


def curve(rows: list[dict], base: str) -> dict[int, list[tuple[float, float]]]:
    """The base's points at all temperatures, by seed, by rising entropy.

    Raises:
      ValueError: when the base was sampled at one temperature alone.
    """
    names = dict.fromkeys(row["row"] for row in rows if on_curve(row["row"], base))
    found: dict[int, list] = {}
    for name in names:
        for seed, point in points(rows, name).items():
            found.setdefault(seed, []).append(point)
    if not any(len(several) > 1 for several in found.values()):
        raise ValueError(f"--base: {base!r} has no temperatures beside 1 in these rows; name a row that has")
    return {seed: sorted(several) for seed, several in found.items()}


def gaps(rows: list[dict], curves: dict[int, list[tuple[float, float]]], name: str) -> dict[int, float]:
    """log(perplexity / the curve's at the same entropy), by seed, of seeds whose entropy the curve reaches.

    Between temperatures the curve is straight in (entropy, log perplexity).
    """
    found = {}
    for seed, (entropy, value) in points(rows, name).items():
        known = curves.get(seed, [])
        if len(known) > 1 and known[0][0] <= entropy <= known[-1][0]:
            entropies, levels = zip(*known, strict=True)
            found[seed] = value - float(np.interp(entropy, entropies, levels))
    return found


def compared(rows: Iterable[dict], base: str, match: str = "") -> list[str]:
    """The rows that `match` finds, else those with as many steps as the base; none are its own temperatures."""
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
    """Print every row's place against the curve."""
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
    """One line: means over seeds, and the perplexity relative to the curve's in percent."""
    entropy, perplexity = (list(by_seed(rows, name, key).values()) for key in (ENTROPY, PERPLEXITY))
    found = list(gaps(rows, curves, name).values())
    line = [name, f"{statistics.fmean(entropy):.3f}", f"{statistics.fmean(perplexity):.2f}"]
    if not found:
        return [*line, "outside", ""]
    if len(found) == 1:
        return [*line, percent(found[0]), "one seed"]
    interval = student(found)
    return [*line, percent(interval.mean), f"[{percent(interval.low)}, {percent(interval.high)}] ({len(found)} seeds)"]


def percent(gap: float) -> str:
    """A log ratio as a signed percentage."""
    return f"{100 * math.expm1(gap):+.1f} %"


if __name__ == "__main__":
    # Here, for the flags of a module count in every program that imports it.
    flags.mark_flags_as_required(["rows", "base"])
    app.run(main)
