"""Plots of a table: losses of trainings, metrics against each other or at given positions, and traces of samplers."""

import math
import statistics
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from diffusion.metrics.statistics import mean_and_error
from diffusion.report import plots
from diffusion.report.tables import values
from experiments import pivots, settings


class Losses(NamedTuple):
    """A plot of losses that have one unit."""

    title: str
    unit: str
    log_y: bool = False


LINES_AND_DOTS = "training (line) and validation (dots)"
# Plots by file name. Losses of text are in bits per byte or per token.
LOSSES = {
    "loss": Losses(LINES_AND_DOTS.capitalize(), "objective, bits per {density}"),
    # A binary cross-entropy does not measure text, so its unit is not bits per byte.
    "predictors": Losses(f"Error predictors: {LINES_AND_DOTS}", "loss (nats)"),
    "regression": Losses(LINES_AND_DOTS.capitalize(), "mean squared error", log_y=True),
    "embedding": Losses(
        f"Embedding diffusion: {LINES_AND_DOTS}", "objective: squared error + cross-entropies (nats per token)"
    ),
}
# File of the losses of each objective, by default "loss"; losses of classifiers are not plotted.
PLOTTED = {
    "errors": "predictors",
    "denoising": "regression",
    "reward": "regression",
    "embedding": "embedding",
    "classification": None,
}


def losses(rows: list[dict], folder: Path) -> list[Path]:
    """Loss curves of the trainings, one plot per unit."""
    trainings = [row for row in rows if row["verb"] == "train"]
    density = "byte" if all(row["metrics"].get("bytes_per_token") for row in trainings) else "token"
    paths = []
    for name, plot in LOSSES.items():
        runs: dict[str, list] = {}
        for row in trainings:
            if row.get("history") and PLOTTED.get(row["config"]["objective"]["name"], "loss") == name:
                history = bits_per_byte(row) if name == "loss" else row["history"]
                runs.setdefault(row["row"], []).append(history)
        if runs:
            paths.append(folder / f"{name}.png")
            plots.loss_curves(paths[-1], plot.title, runs, plot.unit.format(density=density), plot.log_y)
    return paths


def draw(module: ModuleType, config: ConfigDict, rows: list[dict], folder: Path) -> list[Path]:
    """Loss curves of the trainings, and each plot that the table defines."""
    paths = losses(rows, folder)
    table_rows = list(module.rows(config))
    for plot in (*module.TABLE.get("plots", ()), *pivots.plots(module, config, rows)):
        if "by" in plot:
            curves, references = by_settings(table_rows, rows, plot), {}
        elif "series" in plot:
            curves, references = series(rows, plot)
        elif "course" in plot:
            curves, references = course(rows, plot), {}
        else:
            curves, references = trade_off(table_rows, rows, plot)
        if curves:
            paths.append(folder / f"{plot['name']}.png")
            plots.lines(
                paths[-1],
                plot["title"],
                curves,
                plot["xlabel"],
                plot["ylabel"],
                log_x=plot.get("log_x", True),
                log_y=plot.get("log_y", False),
                references=references,
            )
    return paths


def trade_off(table_rows: list[dict], rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Two metrics against each other: rows of one `curve` form a line, rows without one a horizontal reference.

    A row of some plots only has `curves`, its line by the name of the plot. With None for its line the row is a
    horizontal reference, also without the metric of the x axis.
    """
    curves: dict[plots.Label, list] = {}
    references = {}
    for row in table_rows:
        y = values(rows, row["name"], plot["y"])
        x = values(rows, row["name"], plot["x"])
        labels = row.get("curves", {plot["name"]: row.get("curve")})
        label = labels.get(plot["name"])
        level = label is None and "curves" in row
        if plot["name"] not in labels or not y or not (x or level):
            continue
        if label:
            curves.setdefault(label, []).append((statistics.fmean(x), *mean_and_error(y)))
        else:
            references[row["name"]] = statistics.fmean(y)
    return curves, references


def by_settings(table_rows: list[dict], rows: list[dict], plot: dict) -> dict:
    """Two metrics against each other, with a line for every combination of the values that rows have of `by`.

    `by` has keys of fields, such as "config.sample.policy", and "row" for the row's name without the values of a sweep.
    """
    curves: dict[plots.Label, list] = {}
    for row in table_rows:
        x, y = (values(rows, row["name"], plot[axis]) for axis in ("x", "y"))
        if x and y:
            label = tuple(part for key in plot["by"] if (part := setting(row, rows, key)))
            curves.setdefault(label or row["name"], []).append((statistics.fmean(x), *mean_and_error(y)))
    return curves


def setting(row: dict, rows: list[dict], key: str) -> str:
    """The part of a line's label that says which row it is, or which value of a field; empty where the row has none."""
    if key == "row":
        return row.get("base", row["name"])
    found = values(rows, row["name"], key)
    return f"{key.rpartition('.')[2]} {settings.text(found[0])}" if found else ""


def series(rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Named rows at named positions: `series` are (label, metric, ((row, x), ...)), `references` (label, metric, row).

    `levels` are horizontal lines of known height, by label.
    """
    curves = {}
    for label, key, positions in plot["series"]:
        points = [(x, numbers) for name, x in positions if (numbers := values(rows, name, key))]
        if points:
            curves[label] = [(x, *mean_and_error(numbers)) for x, numbers in points]
    references = [(label, values(rows, name, key)) for label, key, name in plot.get("references", ())]
    levels = {label: statistics.fmean(numbers) for label, numbers in references if numbers}
    return curves, levels | plot.get("levels", {})


def course(rows: list[dict], plot: dict) -> dict:
    """Metric `y` of each step of a sampler, for the rows that `course` names by label."""
    curves = {}
    for label, name in plot["course"].items():
        by_step: dict[int, list[float]] = {}
        for each in (each for row in rows if row["row"] == name for each in row.get("by_step", ())):
            if plot["y"] in each:
                by_step.setdefault(each["step"], []).append(each[plot["y"]])
        if by_step:
            curves[label] = [(step, *mean_and_error(numbers)) for step, numbers in by_step.items()]
    return curves


def bits_per_byte(row: dict) -> list[dict]:
    """Losses of a training in bits per byte, each by the bytes per token of its split."""
    metrics = row["metrics"]
    density = {"loss": metrics["bytes_per_token"], "validation_loss": metrics["validation_bytes_per_token"]}
    units = {name: math.log(2) * (bytes_per_token or 1.0) for name, bytes_per_token in density.items()}
    return [
        {key: value / units[key] if key in units else value for key, value in record.items()}
        for record in row["history"]
    ]
