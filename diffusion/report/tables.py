"""Tables from rows: ours +- standard error over seeds, the published figure, the difference; else an empty cell."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Column:
    """A metric of the result rows: its key, its heading with unit, and its number format."""

    key: str
    title: str
    format: str = ".3f"


def values(rows: Iterable[dict], name: str, key: str) -> list[float]:
    """One number a seed: the metric `key` of every result of the row called `name` that has it."""
    return [row["metrics"][key] for row in rows if row["row"] == name and row["metrics"].get(key) is not None]


def cell(numbers: list[float], form: str) -> str:
    """mean +- standard error of the mean over seeds; one seed has no spread, and none is an empty cell."""
    if not numbers:
        return ""
    mean = statistics.fmean(numbers)
    if len(numbers) < 2:
        return format(mean, form)
    return f"{mean:{form}} ± {statistics.stdev(numbers) / math.sqrt(len(numbers)):{form}}"


def assemble(names: list[str], columns: list[Column], rows: list[dict], published: dict) -> tuple[list, list]:
    """Headings and cells. A column with published figures is followed by them and by the difference."""
    headings, body = ["row"], [[name] for name in names]
    for column in columns:
        printed = {name: published.get(name, {}).get(column.key) for name in names}
        shown = any(number is not None for number in printed.values())
        headings += [column.title] + (["published", "difference"] if shown else [])
        for line, name in zip(body, names, strict=True):
            numbers = values(rows, name, column.key)
            line.append(cell(numbers, column.format))
            if shown:
                theirs = printed[name]
                line.append("" if theirs is None else format(theirs, column.format))
                both = numbers and theirs is not None
                line.append(f"{statistics.fmean(numbers) - theirs:+{column.format}}" if both else "")
    return headings, body


def markdown(headings: list, body: list) -> str:
    """A Markdown table."""
    return tabulate(body, headings, tablefmt="github", disable_numparse=True)


def terminal(headings: list, body: list) -> str:
    """A table for the terminal."""
    return tabulate(body, headings, tablefmt="simple", disable_numparse=True)
