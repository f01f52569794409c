"""Tables from rows: ours +- standard error over seeds, the published figure, the difference; else an empty cell.

Where each model was sampled several times, half the 95 % interval over these sets stands in brackets.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from diffusion.metrics.statistics import mean_and_error


@dataclass(frozen=True)
class Column:
    """A metric of the result rows: its key, its heading with unit, and its number format."""

    key: str
    title: str
    format: str = ".3f"


def values(rows: Iterable[dict], name: str, key: str) -> list[float]:
    """One number a seed: the metric `key` of every result of the row called `name` that has it."""
    return [row["metrics"][key] for row in rows if row["row"] == name and row["metrics"].get(key) is not None]


def cell(numbers: list[float], form: str, intervals: Sequence[float] = ()) -> str:
    """mean +- standard error of the mean over seeds; equal values have no spread, and none make an empty cell.

    Half widths of intervals over sets of samples, one a seed, follow as their mean: "594.2 ± 3.1 (± 9.5)".
    """
    if not numbers:
        return ""
    mean, error = mean_and_error(numbers)
    text = f"{mean:{form}} ± {error:{form}}" if len(set(numbers)) > 1 else format(mean, form)
    return f"{text} (± {statistics.fmean(intervals):{form}})" if intervals else text


def assemble(
    names: list[str],
    columns: list[Column],
    rows: list[dict],
    published: dict,
    comparable: bool = True,
    tolerance: dict | None = None,
    figures: Sequence[tuple[str, Mapping[str, str]]] = (),
) -> tuple[list, list]:
    """Headings and cells. A column with published figures is followed by them and, where comparable, by the difference.

    A difference says whether it lies within the table's tolerance for that metric. `figures` are columns of others'
    numbers that ours must not be subtracted from: a heading, and by row a text such as "<= 17.90", printed as it is.
    """
    literal = [(heading, cells) for heading, cells in figures if not cells.keys().isdisjoint(names)]
    headings = ["row", *(heading for heading, _ in literal)]
    body = [[name, *(cells.get(name, "") for _, cells in literal)] for name in names]
    for column in columns:
        printed = {name: published.get(name, {}).get(column.key) for name in names}
        shown = any(number is not None for number in printed.values())
        headings += [column.title, *(["published"] if shown else []), *(["difference"] if shown and comparable else [])]
        for line, name in zip(body, names, strict=True):
            numbers, theirs = values(rows, name, column.key), printed[name]
            line.append(cell(numbers, column.format, values(rows, name, f"{column.key}_interval")))
            if shown:
                line.append("" if theirs is None else format(theirs, column.format))
            if shown and comparable:
                gap = "" if theirs is None or not numbers else difference(numbers, theirs, column, tolerance or {})
                line.append(gap)
    return headings, body


def difference(numbers: list[float], theirs: float, column: Column, tolerance: dict) -> str:
    """Ours minus theirs, and whether that is within the tolerance, where there is one."""
    gap = statistics.fmean(numbers) - theirs
    allowed = tolerance.get(column.key)
    verdict = "" if allowed is None else f" ({'within' if abs(gap) <= allowed else 'outside'} {allowed:g})"
    return f"{gap:+{column.format}}{verdict}"


def markdown(headings: list, body: list) -> str:
    """A Markdown table."""
    return tabulate(body, headings, tablefmt="github", disable_numparse=True)


def terminal(headings: list, body: list) -> str:
    """A table for the terminal."""
    return tabulate(body, headings, tablefmt="simple", disable_numparse=True)
