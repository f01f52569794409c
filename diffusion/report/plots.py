"""Plots of loss curves, and of lines with error bars."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from etils import epy

from diffusion.storage import written

with epy.lazy_imports():
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib import ticker

# The first part of a label determines the color of its line, and the other parts determine the style.
Label = str | tuple[str, ...]
LINES, MARKERS = ("-", "--", ":", "-."), "osD^vPX*<>hdp8"
# Longer legends are placed beside the axes.
MAX_INSET_LEGEND = 6


def new_axes(title: str, x: str, y: str):
    """Return a figure and its axes in the style of all plots."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=130, layout="constrained")
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def save(figure, path: Path) -> None:
    """Write a PNG with its legend on or beside the axes, and close the figure."""
    count = len(figure.axes[0].get_legend_handles_labels()[0])
    if count > MAX_INSET_LEGEND:
        figure.set_size_inches(9.5, max(4.5, 0.22 * count + 0.8))
        figure.legend(loc="outside right upper", fontsize="small")
    elif count:
        figure.axes[0].legend()
    with written(path) as file:
        figure.savefig(file)
    plt.close(figure)


def styles(labels: Iterable[Label]) -> dict[Label, dict]:
    """Return the plot arguments of every label: its color by the first part, its line and marker by the others."""
    parts = {label: (label,) if isinstance(label, str) else tuple(label) for label in labels}
    firsts = list(dict.fromkeys(part[0] for part in parts.values()))
    # The label with the fewest parts has the solid line.
    rests = sorted(dict.fromkeys(part[1:] for part in parts.values()), key=len)
    result = {}
    for label, part in parts.items():
        color, style = firsts.index(part[0]), rests.index(part[1:])
        result[label] = dict(
            label=", ".join(part),
            color=f"C{color % 10}",
            linestyle=LINES[(style + color // 10) % len(LINES)],
            marker=MARKERS[style % len(MARKERS)],
        )
    return result


def loss_curves(
    path: Path, title: str, runs: Mapping[str, Sequence[Sequence[dict]]], y: str, log_y: bool = False
) -> None:
    """Plot training loss (thin lines) and validation loss (dots) with one color per name and one line per run."""
    figure, axes = new_axes(title, "step", y)
    for (name, histories), style in zip(runs.items(), styles(runs).values(), strict=True):
        line = dict(color=style["color"], linestyle=style["linestyle"])
        label = name
        for records in histories:
            train, valid = (
                [(record["step"], record[key]) for record in records if key in record]
                for key in ("loss", "validation_loss")
            )
            if train:
                axes.plot(*zip(*train, strict=True), alpha=0.4, linewidth=1, **line)
            if valid:
                axes.plot(*zip(*valid, strict=True), marker="o", markersize=3, label=label, **line)
                label = None
    if log_y:
        axes.set_yscale("log")
    save(figure, path)


def lines(
    path: Path,
    title: str,
    curves: Mapping[Label, Sequence[tuple[float, float, float]]],
    x: str,
    y: str,
    *,
    log_x: bool = True,
    log_y: bool = False,
    references: Mapping[str, float] | None = None,
) -> None:
    """Plot one line per label through points (x, mean, standard error), and horizontal lines for references."""
    figure, axes = new_axes(title, x, y)
    for (_, points), style in zip(curves.items(), styles(curves).values(), strict=True):
        where, mean, error = zip(*sorted(points), strict=True)
        axes.errorbar(where, mean, yerr=error, markersize=5, capsize=2, **style)
    for number, (name, value) in enumerate((references or {}).items()):
        shade, style = f"{0.3 + 0.2 * (number % 3):.1f}", ("--", ":", "-.")[number // 3 % 3]
        axes.axhline(value, linestyle=style, linewidth=1, color=shade, label=name)
    ticks = sorted({point[0] for points in curves.values() for point in points})
    counts = all(float(tick).is_integer() for tick in ticks)
    if log_x:
        axes.set_xscale("log", base=2 if counts else 10)
        if counts:
            axes.minorticks_off()
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            plain_numbers(axes.xaxis)
    elif counts:
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if log_y:
        axes.set_yscale("log")
        plain_numbers(axes.yaxis)
    save(figure, path)


def plain_numbers(axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 times the powers of ten, without exponents."""

    def label(value: float, _) -> str:
        return np.format_float_positional(value, precision=6, fractional=False, trim="-")

    axis.set_major_formatter(label)
    axis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
    axis.set_minor_formatter(label)
