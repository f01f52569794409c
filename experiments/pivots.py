"""What a sweep found: tables of one metric over one or two axes, its best value along every axis, and plots."""

from types import ModuleType
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from diffusion.metrics.statistics import student
from diffusion.report.tables import Column, cell, markdown, values
from experiments import settings
from experiments.expansion import Axis

BEST = {"min": (min, "lowest"), "max": (max, "highest")}
NOTE = (
    "The best of several rows is chosen by the seeds that are shown, so its value is optimistic. The interval is "
    "Student's 95 % interval over seeds."
)


def swept_rows(module: ModuleType, config: ConfigDict) -> list[dict]:
    """The rows of a table that an axis changes."""
    return [row for row in module.rows(config) if row.get("point") and row.get("shown", True)]


def metrics(module: ModuleType, config: ConfigDict, rows: list[dict]) -> list[tuple[Column, str]]:
    """Metrics of the pivot tables, each with "min" or "max"; by default the first column that swept rows have, "min".

    Raises:
      ValueError: for a metric that no swept row has.
    """
    names = [row["name"] for row in swept_rows(module, config)]
    columns = {column[0]: Column(*column) for column in module.TABLE["columns"]}
    known = [
        key
        for key in columns
        if not key.startswith(settings.PREFIX) and any(numbers(rows, name, key) for name in names)
    ]
    chosen = module.TABLE.get("pivots") or [(key, "min") for key in known[:1]]
    for key, direction in chosen:
        if key not in known or direction not in BEST:
            raise ValueError(
                f"pivot: no row of the sweep has {key}:{direction}; pass one of {', '.join(known)} with :min or :max"
            )
    return [(columns[key], direction) for key, direction in chosen]


def numbers(rows: list[dict], name: str, key: str) -> list[float]:
    """The values of a metric that is a number, one per seed."""
    return [each for each in values(rows, name, key) if not isinstance(each, str)]


def report(module: ModuleType, config: ConfigDict, rows: list[dict]) -> str:
    """The pivot tables of a sweep and the best rows along its axes, in Markdown; empty without a sweep or results."""
    axes = {axis.field: axis for axis in module.TABLE.get("axes", ())}
    swept = swept_rows(module, config)
    parts = []
    for column, direction in metrics(module, config, rows) if axes else ():
        parts.append(f"## {column.title} over {', '.join(axis.name for axis in axes.values())}")
        parts += pivots(swept, rows, column, axes)
        lines = best(swept, rows, column, direction, axes)
        word = BEST[direction][1]
        parts.append(markdown(["row", "along", f"{word} at", column.title, "95 % interval", "seeds"], lines))
    return "\n\n".join([*parts, NOTE]) + "\n" if parts else ""


def pivots(swept: list[dict], rows: list[dict], column: Column, axes: dict[str, Axis]) -> list[str]:
    """Tables of rows with one axis, all in one, and of rows with two axes, one for each row of the original table."""
    by_axes: dict[tuple[str, ...], dict[str, dict[tuple, str]]] = {}
    for row in swept:
        text = cell(numbers(rows, row["name"], column.key), column.format)
        if text:
            by_axes.setdefault(tuple(row["point"]), {}).setdefault(row["base"], {})[tuple(row["point"].values())] = text
    tables = []
    for fields, bases in by_axes.items():
        first, *others = (axes[field] for field in fields)
        if not others:
            body = [
                [settings.text(value), *(cells.get((value,), "") for cells in bases.values())] for value in first.values
            ]
            tables.append(markdown([first.name, *bases], body))
        for base, cells in bases.items() if len(others) == 1 else ():
            body = [
                [settings.text(value), *(cells.get((value, other), "") for other in others[0].values)]
                for value in first.values
            ]
            heads = [f"{others[0].name} {settings.text(other)}" for other in others[0].values]
            tables.append(markdown([f"{base}: {first.name}", *heads], body))
    return tables


def best(swept: list[dict], rows: list[dict], column: Column, direction: str, axes: dict[str, Axis]) -> list[list[str]]:
    """For every axis, and every value of the others, the best row along it with its interval over seeds."""
    lines = []
    for field, axis in axes.items():
        along: dict[tuple[Any, ...], list[tuple[float, Any, list[float]]]] = {}
        for row in swept:
            found = numbers(rows, row["name"], column.key)
            if field in row["point"] and found and np.isfinite(found).all():
                others = (
                    f"{axes[key].name} {settings.text(each)}" for key, each in row["point"].items() if key != field
                )
                point = (float(np.mean(found)), row["point"][field], found)
                along.setdefault((row["base"], *others), []).append(point)
        for names, points in along.items():
            mean, value, found = BEST[direction][0](points, key=lambda point: point[0])
            form = column.format
            interval = student(found) if len(found) > 1 else None
            ends = f"[{interval.low:{form}}, {interval.high:{form}}]" if interval else ""
            lines.append([", ".join(names), axis.name, settings.text(value), f"{mean:{form}}", ends, str(len(found))])
    return lines


def plots(module: ModuleType, config: ConfigDict, rows: list[dict]) -> list[dict]:
    """Plots of the metrics of pivot tables over each axis of numbers, with a line for each value of the others."""
    axes = module.TABLE.get("axes", ())
    found = []
    for column, _ in metrics(module, config, rows) if axes else ():
        for axis in axes:
            if isinstance(axis.values[0], (str, bool)) or len(axis.values) < 2:
                continue
            others = tuple(f"{settings.PREFIX}{each.field}" for each in axes if each is not axis)
            name = f"{column.key}-{axis.name}".replace("/", "-")
            lines = dict(x=f"{settings.PREFIX}{axis.field}", y=column.key, by=("row", *others))
            labels = dict(title=f"{column.title} over {axis.name}", xlabel=axis.name, ylabel=column.title)
            found.append(dict(name=name, log_x=min(axis.values) > 0) | lines | labels)
    return found
