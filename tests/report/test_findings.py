"""Figures in the findings are those of the committed rows.

A figure from rows is followed by a comment that names them,

    2.004 ± 0.027<!-- quickstart: MDLM, bits_per_byte -->

which has the form TABLE: ROW, METRIC. The value is computed from experiments/results/TABLE.local.jsonl and compared at
the printed precision.

A figure is a mean over seeds, then optionally ± its standard error, (±) half the 95 % interval over sets of samples,
or [low, high], a 95 % interval. ROW can be replaced by

    FIRST minus SECOND     the difference of two rows, paired by seed, or by set where there is one seed
    FIRST over SECOND      the ratio of their means
    FIRST against BASE     the perplexity relative to that of the temperature curve of BASE at the same entropy, in %

A paragraph or a table with other decimal numbers has a comment with their source, `<!-- source: ... -->`.
"""

import functools
import math
import re
import statistics
from pathlib import Path

import pytest

from diffusion.metrics.statistics import Interval, by_seed, mean_and_error, student
from diffusion.report.rows import read_rows
from experiments.compare import frontier

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
# Minimum number of marked figures in each text, which grows with the text so that marks are not lost.
MINIMUM = {
    "README": 80,
    "findings/prime": 58,
    "findings/scmdm": 59,
    "findings/gstar": 126,
    "findings/lidar": 97,
    "findings/fastdiss": 105,
    "findings/processes": 26,
}

NUMBER = r"[+-]?\d+(?:\.\d+)?"
FIGURE = re.compile(
    rf"(?P<mean>{NUMBER})(?P<percent> ?%)?"
    rf"(?: ± (?P<error>{NUMBER})(?: ?%)?)?"
    rf"(?: \(± (?P<half>{NUMBER})(?: ?%)?\))?"
    rf"(?: \[(?P<low>{NUMBER}), (?P<high>{NUMBER})\])?"
    r"\**<!-- (?P<table>\w+): (?P<rows>.+?), (?P<metric>[\w/]+) -->"
)
# Decimals that are settings, versions or parts of names, not results.
SETTINGS = re.compile(
    r"<!-- .*? -->|`[^`]*`|\]\([^)]*\)|arXiv \d+\.\d+|"
    r"(?:eta|temperatures?|lambda|level|from|F =|diffusion) \d+\.\d+",
    re.IGNORECASE,
)


@functools.cache
def take_rows(table):
    """Return the committed rows of a table."""
    rows = read_rows(EXPERIMENTS / "results" / f"{table}.local.jsonl")
    assert rows, f"experiments/results/{table}.local.jsonl: no rows"
    return rows


def numbers(table, row, metric):
    """Return the metric of a row by seed."""
    values = by_seed(take_rows(table), row, metric)
    assert values, f"{table}: no row {row!r} with the metric {metric}"
    return values


def differences(table, first, second, metric):
    """Return first - second by seed, or by set of samples for rows with one seed and stored sets."""
    one, other = numbers(table, first, metric), numbers(table, second, metric)
    shared = sorted(one.keys() & other.keys())
    if len(shared) > 1:
        return [one[seed] - other[seed] for seed in shared]
    sets = [row.get("sets", []) for name in (first, second) for row in take_rows(table) if row["row"] == name]
    sets = [each for each in sets if each]
    if len(sets) == 2:
        return [left[metric] - right[metric] for left, right in zip(*sets, strict=True)]
    return [one[seed] - other[seed] for seed in shared]


def gaps(table, first, base, metric):
    """Return log(perplexity / curve of the base) at equal entropy by seed, where the curve covers this entropy."""
    assert metric == "generative_perplexity", f"{table}: `against` is for generative_perplexity, not {metric}"
    rows = take_rows(table)
    log_ratios = list(frontier.gaps(rows, frontier.temperature_curve(rows, base), first).values())
    assert log_ratios, f"{table}: the curve of {base!r} does not cover the entropy of {first!r}"
    return log_ratios


def interval(samples):
    """Return mean, standard error and 95 % interval; a single number has no interval."""
    if len(samples) > 1:
        return student(samples)
    return Interval(samples[0], 0.0, math.nan, math.nan, 1)


def compute(table, rows, metric, percent=False):
    """Return the values of a mark: mean, error, half, low and high."""
    if " against " in rows:
        result = interval(gaps(table, *rows.split(" against "), metric))
        mean, low, high = (100 * math.expm1(value) for value in (result.mean, result.low, result.high))
        return {"mean": mean, "low": low, "high": high}
    factor = 100 if percent else 1
    if " over " in rows:
        first, second = (statistics.fmean(numbers(table, row, metric).values()) for row in rows.split(" over "))
        return {"mean": factor * first / second}
    if " minus " in rows:
        result = interval(differences(table, *rows.split(" minus "), metric))
        return {name: factor * getattr(result, name) for name in ("mean", "error", "low", "high")}
    samples = list(numbers(table, rows, metric).values())
    mean, error = mean_and_error(samples)
    values = {"mean": factor * mean, "error": factor * error}
    halves = by_seed(take_rows(table), rows, f"{metric}_interval")
    return values | ({"half": factor * statistics.fmean(halves.values())} if halves else {})


def printed_as(text, value):
    """Return whether `text` is `value` at the precision of the text."""
    decimals = len(text.partition(".")[2])
    return float(text) == float(f"{value:.{decimals}f}")


TIME_GRIDS = [EXPERIMENTS / "README.md", *sorted((EXPERIMENTS / "findings").glob("*.md"))]
TEXTS = {str(path.relative_to(EXPERIMENTS).with_suffix("")): path.read_text() for path in TIME_GRIDS}


@pytest.mark.parametrize("name", TEXTS)
def test_marked_figures_are_those_of_the_committed_rows(name):
    text = TEXTS[name]
    figures = list(FIGURE.finditer(text))
    assert len(figures) >= MINIMUM.get(name, 0), "the number of marked figures does not decrease"
    marks = re.findall(r"<!-- (?!source: |measured: ).*?-->", text, re.DOTALL)
    unread = set(marks) - {figure[0][figure[0].index("<!--") :] for figure in figures}
    assert not unread, f"{name}: marks that follow no figure: {sorted(unread)[:3]}"
    wrong = []
    for figure in figures:
        values = compute(figure["table"], figure["rows"], figure["metric"], bool(figure["percent"]))
        for part in ("mean", "error", "half", "low", "high"):
            if figure[part] is not None and not printed_as(figure[part], values.get(part, math.nan)):
                wrong.append(f"{figure[0]}: {part} is {values.get(part)}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", TEXTS)
def test_other_decimals_have_a_source(name):
    """Blank lines separate blocks; a source at the beginning of a text applies to all its blocks."""
    text = TEXTS[name]
    if re.match(r"# .*\n\n<!-- source: ", text):
        return
    blocks = re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    unmarked = []
    for block in blocks:
        rest = SETTINGS.sub("", FIGURE.sub("", block))
        if "<!-- source: " not in block and (decimals := re.findall(r"\d+\.\d+", rest)):
            unmarked.append(f"{decimals[:3]} in {block[:80]!r}")
    assert not unmarked, "\n".join(unmarked)


def test_wrong_figure_is_detected():
    """The comparison is at the printed precision: 2.004 is correct, 2.005 is not."""
    value = compute("quickstart", "MDLM", "bits_per_byte")["mean"]
    assert printed_as(f"{value:.3f}", value) and not printed_as(f"{value + 0.001:.3f}", value)
