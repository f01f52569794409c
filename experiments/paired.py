"""Difference of two rows of a table, paired by seed.

    python -m experiments.paired --file=experiments/results/prime_text.local.jsonl --metric=nats_per_token \
        --first="Prime, 2 digits, marginal" --second="Prime, 2 digits, joint"
"""

import sys
from pathlib import Path

from absl import app, flags

from diffusion.metrics.statistics import by_seed, paired
from diffusion.report.rows import read_rows

FLAGS = flags.FLAGS
flags.DEFINE_string("file", None, "Rows of a table, JSON lines.")
flags.DEFINE_string("first", None, "Row to subtract from.")
flags.DEFINE_string("second", None, "Row to subtract.")
flags.DEFINE_string("metric", "nats_per_token", "Metric to compare.")


def numbers(rows: list[dict], name: str, metric: str) -> dict[int, float]:
    """Metric of one row by seed.

    Raises:
      ValueError: if no row of this name has the metric.
    """
    values = by_seed(rows, name, metric)
    if not values:
        names = ", ".join(dict.fromkeys(repr(row["row"]) for row in rows if metric in row["metrics"]))
        raise ValueError(f"row: {name!r} has no {metric}; these have: {names or 'none'}")
    return values


def difference(rows: list[dict], first: str, second: str, metric: str) -> str:
    """Line with mean, standard error and 95 % interval (Student's) of first - second over seeds."""
    result = paired(numbers(rows, first, metric), numbers(rows, second, metric))
    interval = f"[{result.low:+.3f}, {result.high:+.3f}]"
    return f"{metric}: {first} - {second} = {result.mean:+.3f} ± {result.error:.3f}, {interval}, {result.count} seeds"


def main(arguments: list[str]) -> None:
    """Print the difference."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    try:
        rows = read_rows(Path(FLAGS.file))
        if not rows:
            raise ValueError(f"--file: no rows in {FLAGS.file!r}; name a file of experiments/results")
        print(difference(rows, FLAGS.first, FLAGS.second, FLAGS.metric))
    except ValueError as error:
        print(f"paired: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    # A requirement at import would apply to every program that imports this module.
    flags.mark_flags_as_required(["file", "first", "second"])
    app.run(main)
