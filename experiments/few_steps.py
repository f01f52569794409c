"""Claims of FastDiSS on a table of pairs: few steps against many, the effect of each part, and wall time.

python -m experiments.few_steps --table=experiments/results/fastdiss_translation.local.jsonl [--prefix="Tatoeba: "]
"""

import re
import statistics
import sys
from pathlib import Path

from absl import app, flags

from diffusion.metrics.statistics import by_seed, paired
from diffusion.report.rows import read_rows

METHOD, BASE = "MANS and SCP", "standard"
# Differences at equal steps (label, first, second): the method, its parts, and the parts against their controls.
PARTS = (
    ("FastDiSS over its base", METHOD, BASE),
    ("FastDiSS over noise at random", METHOD, "random shift, same mean"),
    ("MANS over its base", "MANS", BASE),
    ("SCP over its base", "SCP", BASE),
    ("SCP beside MANS", METHOD, "MANS"),
    ("noise of single tokens, at random, over the base", "random shift, same mean", BASE),
    ("model-awareness over noise at random", "MANS", "random shift, same mean"),
    ("model-awareness over noise at random, of half the mean", "MANS", "random shift"),
    ("model-awareness over the confidence of other tokens", "MANS", "shuffled confidence"),
)

Curve = dict[int, str]  # row names by steps


def curves(rows: list[dict], prefix: str) -> dict[str, Curve]:
    """Names of the rows of each method by their steps, without rows whose names continue after the steps.

    Raises:
      ValueError: if the method or its base has no row.
    """
    by_method: dict[str, Curve] = {}
    for name in dict.fromkeys(row["row"] for row in rows if row["verb"] == "sample"):
        match = re.fullmatch(re.escape(prefix) + r"(.+), (\d+) steps?", name)
        if match:
            by_method.setdefault(match[1], {})[int(match[2])] = name
    for method in (METHOD, BASE):
        if method not in by_method:
            raise ValueError(f"table: no row {prefix + method!r}; run the whole table")
    return by_method


def mean(rows: list[dict], name: str, metric: str) -> float:
    """Mean of a metric of a row over its seeds."""
    return statistics.fmean(by_seed(rows, name, metric).values())


def difference(rows: list[dict], first: str, second: str, metric: str) -> str:
    """Mean of first - second over their common seeds, with its 95 % interval (Student's)."""
    one, other = by_seed(rows, first, metric), by_seed(rows, second, metric)
    shared = one.keys() & other.keys()
    if len(shared) < 2:
        return f"{mean(rows, first, metric) - mean(rows, second, metric):+.2f} (one seed)"
    interval = paired({seed: one[seed] for seed in shared}, {seed: other[seed] for seed in shared})
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}], {interval.count} seeds"


def parts(rows: list[dict], by_method: dict[str, Curve], metric: str, few: int, many: int) -> list[str]:
    """Lines of the method at few steps against its base at many, and of each part at few and at many steps."""
    lines = []
    if few in by_method[METHOD] and many in by_method[BASE]:
        shown = difference(rows, by_method[METHOD][few], by_method[BASE][many], metric)
        lines.append(f"{METHOD}, {few} steps - {BASE}, {many} steps: {shown}")
    for label, first, second in PARTS:
        for count in (few, many):
            if count in by_method.get(first, ()) and count in by_method.get(second, ()):
                shown = difference(rows, by_method[first][count], by_method[second][count], metric)
                lines.append(f"{label}, {count} steps ({first} - {second}): {shown}")
    return lines


def saved(rows: list[dict], by_method: dict[str, Curve], metric: str) -> list[str]:
    """Lines of the fewest steps of the method that reach each row of its base, with the ratio of wall times."""
    lines = []
    for count, base in sorted(by_method[BASE].items()):
        level, seconds = mean(rows, base, metric), mean(rows, base, "seconds_per_sentence")
        text = f"{base} ({metric} {level:.2f}, {1e3 * seconds:.2f} ms per sentence)"
        enough = [steps for steps, name in by_method[METHOD].items() if mean(rows, name, metric) >= level]
        if not enough:
            lines.append(f"{text}: reached by no row of {METHOD}")
            continue
        first = by_method[METHOD][min(enough)]
        value, duration = mean(rows, first, metric), mean(rows, first, "seconds_per_sentence")
        ratio = f"{count / min(enough):.3g} times fewer steps, {seconds / duration:.3g} times less wall time"
        ratio = ratio if count > min(enough) else "in no fewer steps"
        lines.append(f"{text}: reached by {first} ({value:.2f}, {1e3 * duration:.2f} ms), {ratio}")
    return lines


def report(rows: list[dict], prefix: str = "", metric: str = "bleu", few: int = 5, many: int = 20) -> list[str]:
    """Lines with the result of each claim."""
    by_method = curves(rows, prefix)
    return parts(rows, by_method, metric, few, many) + saved(rows, by_method, metric)


def main(arguments: list[str]) -> None:
    """Print the result of each claim."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    options = flags.FLAGS
    path = Path(options.table)
    try:
        if not path.is_file():
            raise ValueError(f"--table: {path} is not a file; publish the table with `launch.py run ... --publish`")
        print("\n".join(report(read_rows(path), options.prefix, options.metric, options.steps, options.many)))
    except ValueError as error:
        print(f"few_steps: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    # Flags belong to the process, and other tools define flags of the same names.
    flags.DEFINE_string("table", "experiments/results/fastdiss_translation.local.jsonl", "Rows of a table, JSON lines.")
    flags.DEFINE_string("prefix", "", "Prefix of the row names of a data set.")
    flags.DEFINE_string("metric", "bleu", "Metric to compare.")
    flags.DEFINE_integer("steps", 5, "Steps of the method.")
    flags.DEFINE_integer("many", 20, "Steps of the base.")
    app.run(main)
