"""Plots of a table: losses of its trainings, metrics against each other or by place, and the course of samplers."""

import math
import statistics
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from ml_collections import ConfigDict

from diffusion.metrics.statistics import mean_and_error
from diffusion.report import plots
from diffusion.report.tables import values


class Losses(NamedTuple):
    """A plot of losses that have one unit."""

    title: str
    unit: str
    log_y: bool = False


LINES_AND_DOTS = "training (line) and validation (dots)"
# By file. Losses of text are printed in bits a byte, or a token.
LOSSES = {
    "loss": Losses(LINES_AND_DOTS.capitalize(), "objective, bits per {density}"),
    # Nats of a yes or no, that are no text's.
    "predictors": Losses(f"Error predictors: {LINES_AND_DOTS}", "loss (nats)"),
    "regression": Losses(LINES_AND_DOTS.capitalize(), "mean squared error", log_y=True),
    "embedding": Losses(
        f"Embedding diffusion: {LINES_AND_DOTS}", "objective: squared error + cross-entropies (nats a token)"
    ),
}
# The file of each objective's losses, "loss" where it is not named; those of classifiers are not shown.
PLOTTED = {
    "errors": "predictors",
    "denoising": "regression",
    "reward": "regression",
    "embedding": "embedding",
    "classification": None,
}


def losses(rows: list[dict], folder: Path) -> list[Path]:
    """Loss curves of the trainings, a plot a unit."""
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
    """Loss curves of the trainings, and each plot that the table asks for."""
    paths = losses(rows, folder)
    asked = list(module.rows(config))
    for plot in module.TABLE.get("plots", ()):
        if "series" in plot:
            curves, references = series(rows, plot)
        elif "course" in plot:
            curves, references = course(rows, plot), {}
        else:
            curves, references = trade_off(asked, rows, plot)
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


def trade_off(asked: list[dict], rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Two metrics against each other: rows of one `curve` make a line, rows without one a horizontal reference.

    A row that belongs to some plots alone names its line in each of them: `curves`, by the plot's name; with None for
    its line it is a level there, whether it has the other metric or not.
    """
    curves: dict[plots.Label, list] = {}
    references = {}
    for row in asked:
        y = values(rows, row["name"], plot["y"])
        x = values(rows, row["name"], plot["x"])
        named = row.get("curves", {plot["name"]: row.get("curve")})
        label = named.get(plot["name"])
        level = label is None and "curves" in row
        if plot["name"] not in named or not y or not (x or level):
            continue
        if label:
            curves.setdefault(label, []).append((statistics.fmean(x), *mean_and_error(y)))
        else:
            references[row["name"]] = statistics.fmean(y)
    return curves, references


def series(rows: list[dict], plot: dict) -> tuple[dict, dict]:
    """Named rows at named places: `series` are (label, metric, ((row, x), ...)), `references` (label, metric, row).

    `levels` are horizontal lines too, of known height by label.
    """
    curves = {}
    for label, key, places in plot["series"]:
        found = [(x, numbers) for name, x in places if (numbers := values(rows, name, key))]
        if found:
            curves[label] = [(x, *mean_and_error(numbers)) for x, numbers in found]
    references = [(label, values(rows, name, key)) for label, key, name in plot.get("references", ())]
    levels = {label: statistics.fmean(numbers) for label, numbers in references if numbers}
    return curves, levels | plot.get("levels", {})


def course(rows: list[dict], plot: dict) -> dict:
    """What a sampler's steps looked like, one after the other: `course` names rows by label, `y` what is shown."""
    curves = {}
    for label, name in plot["course"].items():
        found: dict[int, list[float]] = {}
        for each in (each for row in rows if row["row"] == name for each in row.get("by_step", ())):
            if plot["y"] in each:
                found.setdefault(each["step"], []).append(each[plot["y"]])
        if found:
            curves[label] = [(step, *mean_and_error(numbers)) for step, numbers in found.items()]
    return curves


def bits_per_byte(row: dict) -> list[dict]:
    """The losses of a training in bits a byte, each with the density of its own split's text."""
    metrics = row["metrics"]
    density = {"loss": metrics["bytes_per_token"], "validation_loss": metrics["validation_bytes_per_token"]}
    units = {name: math.log(2) * (bytes_per_token or 1.0) for name, bytes_per_token in density.items()}
    return [
        {key: value / units[key] if key in units else value for key, value in record.items()}
        for record in row["history"]
    ]
