"""Samples of a model compared with the temperature curve of another model.

Generative perplexity decreases with better text and with lower entropy. The base sampled at several temperatures gives
a curve of perplexity against entropy. Every other row with the same steps is compared with this curve at its entropy,
by log(perplexity / curve) for each seed. Values below 0 mean better text than the base's at equal entropy.
"""

import math
import re
import statistics
from collections.abc import Iterable

import numpy as np
from tabulate import tabulate

from diffusion.metrics.statistics import by_seed, student

PERPLEXITY, ENTROPY = "generative_perplexity", "entropy"

Curves = dict[int, list[tuple[float, float]]]  # by seed, points (entropy, log perplexity)


def report(rows: list[dict], base: str, match: str = "") -> list[str]:
    """Lines with the position of each row relative to the curve."""
    curves = temperature_curve(rows, base)
    cells = [against_curve(rows, curves, name) for name in compared(rows, base, match)]
    headings = ["row", "entropy (nats)", "gen. perplexity", "against the curve", "95 % interval over seeds"]
    return [f"curve: {base}, at all its temperatures", "", tabulate(cells, headings, disable_numparse=True)]


def points(rows: list[dict], name: str) -> dict[int, tuple[float, float]]:
    """(entropy, log perplexity) of a row by seed."""
    entropies, perplexities = (by_seed(rows, name, key) for key in (ENTROPY, PERPLEXITY))
    return {seed: (entropies[seed], math.log(perplexities[seed])) for seed in perplexities if seed in entropies}


def on_curve(name: str, base: str) -> bool:
    """Whether a row is the base at one of its temperatures."""
    return name == base or name.startswith(f"{base}, temperature ")


def temperature_curve(rows: list[dict], base: str) -> Curves:
    """Points of the base at all temperatures, sorted by entropy; raises ValueError for one temperature only."""
    curves: Curves = {}
    for name in dict.fromkeys(row["row"] for row in rows if on_curve(row["row"], base)):
        for seed, point in points(rows, name).items():
            curves.setdefault(seed, []).append(point)
    if not any(len(curve) > 1 for curve in curves.values()):
        raise ValueError(f"--base: {base!r} has no temperatures other than 1 in these rows; name a row that has")
    return {seed: sorted(curve) for seed, curve in curves.items()}


def gaps(rows: list[dict], curves: Curves, name: str) -> dict[int, float]:
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


def against_curve(rows: list[dict], curves: Curves, name: str) -> list[str]:
    """Cells of one row: means over seeds, and the perplexity relative to the curve in percent."""
    entropy, perplexity = (statistics.fmean(by_seed(rows, name, key).values()) for key in (ENTROPY, PERPLEXITY))
    differences, line = list(gaps(rows, curves, name).values()), [name, f"{entropy:.3f}", f"{perplexity:.2f}"]
    if not differences:
        return [*line, "outside", ""]
    if len(differences) == 1:
        return [*line, percent(differences[0]), "one seed"]
    mean, _, low, high, count = student(differences)
    return [*line, percent(mean), f"[{percent(low)}, {percent(high)}] ({count} seeds)"]


def percent(gap: float) -> str:
    """Log ratio as a signed percentage."""
    return f"{100 * math.expm1(gap):+.1f} %"
