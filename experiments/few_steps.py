"""FastDiSS's claims on a table of pairs: few steps against many, what its parts add, and the wall time that is saved.

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
# What is taken from what, at equal steps: the whole, its parts, and the parts against their controls.
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
    """Names of the rows of every method by their steps; rows with something behind the steps are left out.

    Raises:
      ValueError: where the method or its base has none.
    """
    found: dict[str, Curve] = {}
    for name in dict.fromkeys(row["row"] for row in rows if row["verb"] == "sample"):
        match = re.fullmatch(re.escape(prefix) + r"(.+), (\d+) steps?", name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = name
    for method in (METHOD, BASE):
        if method not in found:
            raise ValueError(f"table: no row {prefix + method!r}; run the whole table")
    return found


def mean(rows: list[dict], name: str, metric: str) -> float:
    """A metric of a row over its seeds."""
    return statistics.fmean(by_seed(rows, name, metric).values())


def difference(rows: list[dict], first: str, second: str, metric: str) -> str:
    """first - second, a mean over the seeds that both have, with its 95 % interval (Student's)."""
    one, other = by_seed(rows, first, metric), by_seed(rows, second, metric)
    shared = one.keys() & other.keys()
    if len(shared) < 2:
        return f"{mean(rows, first, metric) - mean(rows, second, metric):+.2f} (one seed)"
    found = paired({seed: one[seed] for seed in shared}, {seed: other[seed] for seed in shared})
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}], {found.count} seeds"


def parts(rows: list[dict], found: dict[str, Curve], metric: str, few: int, many: int) -> list[str]:
    """The method at few steps against its base at many, and every part at few and at many steps."""
    lines = []
    if few in found[METHOD] and many in found[BASE]:
        shown = difference(rows, found[METHOD][few], found[BASE][many], metric)
        lines.append(f"{METHOD}, {few} steps - {BASE}, {many} steps: {shown}")
    for label, first, second in PARTS:
        for count in (few, many):
            if count in found.get(first, ()) and count in found.get(second, ()):
                shown = difference(rows, found[first][count], found[second][count], metric)
                lines.append(f"{label}, {count} steps ({first} - {second}): {shown}")
    return lines


def saved(rows: list[dict], found: dict[str, Curve], metric: str) -> list[str]:
    """For every number of steps of the base the fewest of the method that are as good, and the ratio of wall times."""
    lines = []
    for count, base in sorted(found[BASE].items()):
        level, seconds = mean(rows, base, metric), mean(rows, base, "seconds_per_sentence")
        text = f"{base} ({metric} {level:.2f}, {1e3 * seconds:.2f} ms a sentence)"
        enough = [steps for steps, name in found[METHOD].items() if mean(rows, name, metric) >= level]
        if not enough:
            lines.append(f"{text}: reached by no row of {METHOD}")
            continue
        first = found[METHOD][min(enough)]
        own, took = mean(rows, first, metric), mean(rows, first, "seconds_per_sentence")
        ratio = f"{count / min(enough):.3g} times fewer steps, {seconds / took:.3g} times less wall time"
        ratio = ratio if count > min(enough) else "in no fewer steps"
        lines.append(f"{text}: reached by {first} ({own:.2f}, {1e3 * took:.2f} ms), {ratio}")
    return lines


def report(rows: list[dict], prefix: str = "", metric: str = "bleu", few: int = 5, many: int = 20) -> list[str]:
    """The claims as lines."""
    found = curves(rows, prefix)
    return parts(rows, found, metric, few, many) + saved(rows, found, metric)


def main(arguments: list[str]) -> None:
    """Print the claims."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    options = flags.FLAGS
    path = Path(options.table)
    try:
        if not path.is_file():
            raise ValueError(f"--table: {path} is no file; publish the table with `launch.py run ... --publish`")
        print("\n".join(report(read_rows(path), options.prefix, options.metric, options.steps, options.many)))
    except ValueError as error:
        print(f"few_steps: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    # Here, for flags are the process's, and other tools have some of the same name.
    flags.DEFINE_string("table", "experiments/results/fastdiss_translation.local.jsonl", "Rows of a table, JSON lines.")
    flags.DEFINE_string("prefix", "", "What row names of a data set begin with.")
    flags.DEFINE_string("metric", "bleu", "Which of their metrics.")
    flags.DEFINE_integer("steps", 5, "Few.")
    flags.DEFINE_integer("many", 20, "Many.")
    app.run(main)
