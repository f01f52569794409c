"""Whether the rows of a run reproduce the committed ones of the same table and scale.

For each metric of the table's columns, new seeds are compared with the committed seeds by the prediction interval

    |mean(new) - mean(committed)| <= t_{n - 1} sqrt(s^2 (1 / n + 1 / m) + 2 u^2),

with s the standard deviation of n committed seeds, m new seeds, Student's t at 99 %, and u the standard deviation of a
machine where it was measured (see `experiments.machines`), which all seeds of a run share. Where it was not, other
processors, numbers of threads and versions add to s, so that a difference is a reason to look, not an error.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from etils import epy

from diffusion.report.tables import Column, terminal, values
from experiments import machines

with epy.lazy_imports():
    from scipy import special

LEVEL = 0.99


class Comparison(NamedTuple):
    """One metric of one row: means, and the difference in units of its standard deviation under equal settings."""

    row: str
    column: Column
    here: float
    committed: float
    deviations: float | None  # None: without a spread over committed seeds
    limit: float

    @property
    def verdict(self) -> str:
        """One of reproduced, differs, or not judged."""
        if self.deviations is None:
            equal = math.isclose(self.here, self.committed, rel_tol=1e-6, abs_tol=1e-12)
            return "reproduced" if equal else "not judged (no spread over committed seeds)"
        return "reproduced" if abs(self.deviations) <= self.limit else "differs"


def compare(
    column: Column, row: str, here: Sequence[float], committed: Sequence[float], machine: float = 0.0
) -> Comparison:
    """Compare new seeds of one metric with the committed ones, given the standard deviation of a machine."""
    gap = statistics.fmean(here) - statistics.fmean(committed)
    means = statistics.fmean(here), statistics.fmean(committed)
    if len(committed) < 2:
        return Comparison(row, column, *means, None, 0.0)
    variance = statistics.variance(committed) * (1 / len(committed) + 1 / len(here)) + 2 * machine**2
    scale = math.sqrt(variance)
    limit = float(special.stdtrit(len(committed) - 1, (1 + LEVEL) / 2))
    return Comparison(row, column, *means, gap / scale if scale else None, limit)


def comparisons(columns: list[Column], rows: list[dict], committed: list[dict], others: list[dict]) -> list[Comparison]:
    """All metrics of columns that both sides have, but for times; `others` are rows of other machines."""
    found = []
    for name in dict.fromkeys(row["row"] for row in rows):
        for column in columns:
            here, there = values(rows, name, column.key), values(committed, name, column.key)
            if here and there and not column.key.startswith(machines.TIMES):
                spread = machines.deviation(machines.differences(name, column.key, others, committed))
                found.append(compare(column, name, here, there, spread))
    return found


def report(columns: list[Column], rows: list[dict], committed: list[dict], others: list[dict], source: str) -> str:
    """The comparison for the terminal: a line for each difference, and how many metrics were reproduced."""
    every = comparisons(columns, rows, committed, others)
    if not every:
        return ""
    lines = [
        [
            each.row,
            each.column.title,
            format(each.here, each.column.format),
            format(each.committed, each.column.format),
            "" if each.deviations is None else f"{each.deviations:+.1f} (limit {each.limit:.1f})",
            each.verdict,
        ]
        for each in every
        if each.verdict != "reproduced"
    ]
    reproduced, differ = (sum(each.verdict == verdict for each in every) for verdict in ("reproduced", "differs"))
    text = f"Compared with {source}: {reproduced} of {len(every)} figures reproduced, {differ} differ."
    headings = ["row", "figure", "here", "committed", "standard deviations", "verdict"]
    return text + (f"\n\n{terminal(headings, lines)}" if lines else "")
