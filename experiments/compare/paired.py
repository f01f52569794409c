"""Difference of two rows of a table, paired by seed."""

from diffusion.metrics.statistics import by_seed, paired


def report(rows: list[dict], first: str, second: str, metric: str = "nats_per_token") -> list[str]:
    """Line with mean, standard error and 95 % interval (Student's) of first - second over seeds.

    Raises:
      ValueError: if a row lacks the metric, or the seeds of both differ.
    """
    result = paired(numbers(rows, first, metric), numbers(rows, second, metric))
    interval = f"[{result.low:+.3f}, {result.high:+.3f}]"
    return [f"{metric}: {first} - {second} = {result.mean:+.3f} ± {result.error:.3f}, {interval}, {result.count} seeds"]


def numbers(rows: list[dict], name: str, metric: str) -> dict[int, float]:
    """Metric of one row by seed; raises ValueError if no row of this name has it."""
    values = by_seed(rows, name, metric)
    if not values:
        names = ", ".join(dict.fromkeys(repr(row["row"]) for row in rows if metric in row["metrics"]))
        raise ValueError(f"row: {name!r} has no {metric}; these have: {names or 'none'}")
    return values
