"""Loss curves as SVG, to be put into a page."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 380, 230
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 10, 30
MOST_POINTS = 300  # of one line
LOG_RATIO = 20  # between the largest and the smallest loss, from which the axis is logarithmic
COLORS = 8  # of the classes color0, color1, ... of the page

Points = list[tuple[float, float]]


def loss_chart(runs: Mapping[str, Sequence[dict]]) -> str:
    """Return one chart: per run a thin line of the training losses of its records, and dots of validation losses.

    Losses that are not finite are left out. Empty without any loss.
    """
    lines = {label: points(records, "loss") for label, records in runs.items()}
    dots = {label: points(records, "validation_loss") for label, records in runs.items()}
    every = [point for group in (lines, dots) for each in group.values() for point in each]
    if not every:
        return ""
    losses = [loss for _, loss in every]
    logarithmic = min(losses) > 0 and max(losses) / min(losses) > LOG_RATIO
    steps = max(max(step for step, _ in every), 1.0)
    levels = decades(min(losses), max(losses)) if logarithmic else ticks(min(losses), max(losses))
    low, high = min(levels[0], *losses), max(levels[-1], *losses)

    def across(step: float) -> float:
        return LEFT + step / steps * (WIDTH - LEFT - RIGHT)

    def down(loss: float) -> float:
        ends = [math.log(value) if logarithmic else value for value in (loss, low, high)]
        share = (ends[0] - ends[1]) / ((ends[2] - ends[1]) or 1.0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="loss by step">']
    for level in levels:
        y = f"{down(level):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="left" x="{LEFT - 6}" y="{down(level) + 3.5:.1f}">{level:g}</text>')
    for step in ticks(0, steps):
        if step <= steps:
            parts.append(f'<text class="below" x="{across(step):.1f}" y="{HEIGHT - BOTTOM + 16}">{step:,.6g}</text>')
    for number, label in enumerate(runs):
        color = f"color{number % COLORS}"
        path = " ".join(f"{across(step):.1f},{down(loss):.1f}" for step, loss in thinned(lines[label]))
        parts.append(f'<polyline class="{color}" points="{path}"/>' if path else "")
        for step, loss in thinned(dots[label]):
            note = f"{label}: validation loss {loss:.4f} at step {step:,.0f}"
            where = f'cx="{across(step):.1f}" cy="{down(loss):.1f}" r="3"'
            parts.append(f'<circle class="{color}" {where}><title>{escape(note)}</title></circle>')
    return "".join([*parts, "</svg>"])


def points(records: Sequence[dict], key: str) -> Points:
    """Return (step, value) of the records that have a finite value."""
    return [(record["step"], record[key]) for record in records if math.isfinite(record.get(key, math.nan))]


def thinned(line: Points) -> Points:
    """Return about `MOST_POINTS` points of a line, its last one included."""
    every = max(1, len(line) // MOST_POINTS)
    return line[::every] + ([line[-1]] if line and (len(line) - 1) % every else [])


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers in equal steps that enclose an interval, about as many as given."""
    width = (high - low) or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(width / about))
    step = next(size * factor for factor in (1, 2, 5, 10) if width / (size * factor) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)  # 1.9 / 0.1 is less than 19
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return the powers of ten that enclose an interval."""
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
