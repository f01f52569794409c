"""Plots: loss curves, and quality against cost."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, ScalarFormatter


def new_axes(title: str, x: str, y: str):
    """A figure of one size and style for all plots."""
    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=130)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def save(figure, path: Path) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def loss_curves(path: Path, title: str, runs: Mapping[str, Sequence[dict]], unit: float, y: str) -> None:
    """Training loss (thin) and validation loss (dots) of each run; `unit` divides nats per token."""
    figure, axes = new_axes(title, "step", y)
    for name, records in runs.items():
        train = [(record["step"], record["loss"] / unit) for record in records if "loss" in record]
        valid = [
            (record["step"], record["validation_loss"] / unit) for record in records if "validation_loss" in record
        ]
        lines = axes.plot(*zip(*train, strict=True), alpha=0.5, linewidth=1) if train else []
        colour = lines[0].get_color() if lines else None
        if valid:
            axes.plot(*zip(*valid, strict=True), "o-", color=colour, markersize=3, label=f"{name} (validation)")
    axes.legend()
    save(figure, path)


def trade_off(
    path: Path,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    x: str,
    y: str,
    *,
    log_x: bool = True,
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
) -> None:
    """One line a method through (cost, mean, standard error), and horizontal lines for references."""
    figure, axes = new_axes(title, x, y)
    for name, points in curves.items():
        cost, mean, error = zip(*sorted(points), strict=True)
        axes.errorbar(cost, mean, yerr=error, marker="o", markersize=4, capsize=2, label=name)
    for number, (name, value) in enumerate((references or {}).items()):
        shade, style = f"{0.3 + 0.2 * (number % 3):.1f}", ("--", ":", "-.")[number // 3 % 3]
        axes.axhline(value, linestyle=style, linewidth=1, color=shade, label=name)
    if log_x:
        axes.set_xscale("log", base=2)
        ticks = sorted({point[0] for points in curves.values() for point in points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.legend()
    save(figure, path)
