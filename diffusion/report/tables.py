"""Tables of result rows: mean and standard error over seeds, the published value, and the difference.

A cell without results is empty. If each model has several sets of samples, brackets contain half of the 95 % interval
over the sets.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from diffusion.metrics.statistics import mean_and_error


@dataclass(frozen=True)
class Column:
    """A metric of the result rows: its key, its title with the unit, and its number format."""

    key: str
    title: str
    format: str = ".3f"


def values(rows: Iterable[dict], name: str, key: str) -> list[Any]:
    """Return the metric `key` of all results of the row `name` that have it, one value per seed."""
    return [row["metrics"][key] for row in rows if row["row"] == name and row["metrics"].get(key) is not None]


def cell(numbers: list[Any], form: str, intervals: Sequence[float] = ()) -> str:
    """Format the mean and its standard error over seeds, as in "594.2 ± 3.1 (± 9.5)".

    The brackets contain the mean of `intervals`, the half widths over sets of samples, one per seed. Equal numbers are
    formatted without an error, no numbers as an empty cell, and names as they are.
    """
    if not numbers:
        return ""
    if isinstance(numbers[0], str):  # a setting
        return ", ".join(sorted(set(numbers)))
    mean, error = mean_and_error(numbers)
    text = f"{mean:{form}} ± {error:{form}}" if len(set(numbers)) > 1 else format(mean, form)
    return f"{text} (± {statistics.fmean(intervals):{form}})" if intervals else text


def measured(rows: Iterable[dict], name: str, column: Column) -> str:
    """Format the cell of a row and a column."""
    rows = list(rows)
    return cell(values(rows, name, column.key), column.format, values(rows, name, f"{column.key}_interval"))


def marked(rows: Sequence[dict], name: str, column: Column, marks: Sequence[str]) -> str:
    """Format one mean for each mark, as in "0.31 ± 0.01 [1]; 0.04 [2]"."""
    texts = {mark: measured((row for row in rows if row.get("mark") == mark), name, column) for mark in marks}
    return "; ".join(f"{text} {mark}" for mark, text in texts.items() if text)


def assemble(
    names: list[str],
    columns: list[Column],
    rows: list[dict],
    published: dict,
    comparable: bool = True,
    tolerance: dict | None = None,
    figures: Sequence[tuple[str, Mapping[str, str]]] = (),
    apart: tuple[str, ...] = (),
) -> tuple[list, list]:
    """Return the headings and the cells of a table.

    A column with published values has a second column with them and, if `comparable`, a third with the difference,
    which says whether it lies within the tolerance of its metric. `figures` are columns of other published values
    without a difference: a heading, and a text per row, such as "<= 17.90". Metrics whose key begins with one of
    `apart` are averaged only over rows with an equal `mark`, which the cell then names, and are not compared.
    """
    literal = [(heading, cells) for heading, cells in figures if not cells.keys().isdisjoint(names)]
    headings = ["row", *(heading for heading, _ in literal)]
    body = [[name, *(cells.get(name, "") for _, cells in literal)] for name in names]
    for column in columns:
        printed = {name: published.get(name, {}).get(column.key) for name in names}
        has_published = any(number is not None for number in printed.values())
        headings += [column.title, *(["published"] if has_published else [])]
        headings += ["difference"] if has_published and comparable else []
        for line, name in zip(body, names, strict=True):
            numbers, theirs = values(rows, name, column.key), printed[name]
            marks = {row["mark"]: None for row in rows if row.get("mark") and column.key.startswith(apart)}
            line.append(marked(rows, name, column, list(marks)) if marks else measured(rows, name, column))
            if has_published:
                line.append("" if theirs is None else format(theirs, column.format))
            if has_published and comparable:
                gap = (
                    ""
                    if theirs is None or not numbers or marks
                    else difference(numbers, theirs, column, tolerance or {})
                )
                line.append(gap)
    return headings, body


def difference(numbers: list[float], theirs: float, column: Column, tolerance: dict) -> str:
    """Format the mean of `numbers` minus the published value, and whether it lies within the tolerance, if any."""
    gap = statistics.fmean(numbers) - theirs
    limit = tolerance.get(column.key)
    verdict = "" if limit is None else f" ({'within' if abs(gap) <= limit else 'outside'} {limit:g})"
    return f"{gap:+{column.format}}{verdict}"


def markdown(headings: list, body: list) -> str:
    """Format a table in Markdown."""
    return tabulate(body, headings, tablefmt="github", disable_numparse=True)


def terminal(headings: list, body: list) -> str:
    """Format a table for the terminal."""
    return tabulate(body, headings, tablefmt="simple", disable_numparse=True)
