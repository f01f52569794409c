"""Means with errors, and confidence intervals over seeds, over sets of samples, and of differences of rows."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from etils import epy
from jaxtyping import Float

with epy.lazy_imports():
    from scipy import special


class Interval(NamedTuple):
    """A mean with its standard error and the ends of its confidence interval."""

    mean: float
    error: float
    low: float
    high: float
    count: int


def mean_and_error(numbers: list[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error; 0 for one seed."""
    error = statistics.stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 1 else 0.0
    return statistics.fmean(numbers), error


def ratio(totals: Float[np.ndarray, " N"], counts: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """sum(totals) / sum(counts) and its standard error over rows by the delta method; NaN error for a single row."""
    mean = totals.sum() / counts.sum()
    if len(totals) < 2:
        return float(mean), float("nan")
    spread = np.sqrt(np.sum((totals - mean * counts) ** 2) / (len(totals) - 1))
    return float(mean), float(spread / counts.mean() / np.sqrt(len(totals)))


def student(numbers: Sequence[float] | Float[np.ndarray, " N"]) -> Interval:
    """Student's 95 % interval mean +- t * s / sqrt(n), with t the quantile for n - 1 degrees of freedom.

    Valid for independent, approximately normal numbers, such as a metric over seeds. Half the interval is t times the
    standard error that tables print, and t is 4.30 for 3 seeds and 2.78 for 5.

    Raises:
      ValueError: for fewer than two numbers, or one that is not finite.
    """
    numbers = [float(number) for number in numbers]
    if len(numbers) < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"seeds: an interval needs at least 2 finite numbers, not {numbers}; pass more --config.seeds")
    mean, error = mean_and_error(numbers)
    half = float(special.stdtrit(len(numbers) - 1, 0.975)) * error
    return Interval(mean, error, mean - half, mean + half, len(numbers))


def mean_over_sets(sets: Sequence[Mapping[str, float | str]]) -> dict[str, float | str]:
    """Means of metrics over sets of samples of a model, each with half its 95 % interval as `<metric>_interval`.

    A single set is returned unchanged, including entries that are not numbers. The mean of a metric that some sets
    lack, such as properties of novel molecules, is over the others; a metric of one set alone, or with equal values in
    all sets, has no interval.
    """
    if len(sets) == 1:
        return dict(sets[0])
    metrics: dict[str, float | str] = {}
    for name in dict.fromkeys(name for each in sets for name in each):
        numbers = [float(each[name]) for each in sets if name in each]
        if len(set(numbers)) == 1:
            metrics[name] = numbers[0]
            continue
        interval = student(numbers)
        metrics |= {name: interval.mean, f"{name}_interval": interval.high - interval.mean}
    return metrics


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Interval:
    """Student's interval of first - second by seed, in which effects common to rows of a seed cancel.

    Raises:
      ValueError: when the seeds differ, or as `student` does.
    """
    if first.keys() != second.keys():
        raise ValueError(f"seeds: rows of seeds {sorted(first)} and {sorted(second)} cannot be paired")
    return student([first[seed] - second[seed] for seed in first])


def by_seed(rows: Iterable[dict], name: str, key: str) -> dict[int, float]:
    """Metric `key` of the row `name`, by seed, for `paired`.

    Raises:
      ValueError: when a seed occurs twice.
    """
    values: dict[int, float] = {}
    for row in rows:
        if row["row"] == name and row["metrics"].get(key) is not None:
            if row["seed"] in values:
                raise ValueError(f"seeds: row {name!r} has two results of seed {row['seed']}")
            values[row["seed"]] = row["metrics"][key]
    return values
