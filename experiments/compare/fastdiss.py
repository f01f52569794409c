"""Claims of FastDiSS on a table of pairs: few steps against many, the effect of each part, and wall time."""

import re
import statistics

from diffusion.metrics.statistics import by_seed, student

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

Steps = dict[int, str]  # row names by steps


def report(rows: list[dict], prefix: str = "", metric: str = "bleu", few: int = 5, many: int = 20) -> list[str]:
    """Lines of the method at few steps against its base at many, of each part, and of the steps and time saved."""
    methods, lines = by_steps(rows, prefix), []
    pairs = [(f"{METHOD}, {few} steps - {BASE}, {many} steps", METHOD, few, BASE, many)]
    for label, first, second in PARTS:
        pairs += [(f"{label}, {n} steps ({first} - {second})", first, n, second, n) for n in (few, many)]
    for label, first, steps, second, base_steps in pairs:
        if steps in methods.get(first, ()) and base_steps in methods.get(second, ()):
            shown = shared_difference(rows, methods[first][steps], methods[second][base_steps], metric)
            lines.append(f"{label}: {shown}")
    for count, base in sorted(methods[BASE].items()):
        level, seconds = mean(rows, base, metric), mean(rows, base, "seconds_per_sentence")
        text = f"{base} ({metric} {level:.2f}, {1e3 * seconds:.2f} ms per sentence)"
        enough = [steps for steps, name in methods[METHOD].items() if mean(rows, name, metric) >= level]
        if not enough:
            lines.append(f"{text}: reached by no row of {METHOD}")
            continue
        first = methods[METHOD][min(enough)]
        value, duration = mean(rows, first, metric), mean(rows, first, "seconds_per_sentence")
        ratio = f"{count / min(enough):.3g} times fewer steps, {seconds / duration:.3g} times less wall time"
        ratio = ratio if count > min(enough) else "in no fewer steps"
        lines.append(f"{text}: reached by {first} ({value:.2f}, {1e3 * duration:.2f} ms), {ratio}")
    return lines


def by_steps(rows: list[dict], prefix: str) -> dict[str, Steps]:
    """Names of the rows of each method by their steps, without rows whose names continue after the steps.

    Raises:
      ValueError: if the method or its base has no row.
    """
    methods: dict[str, Steps] = {}
    for name in dict.fromkeys(row["row"] for row in rows if row["verb"] == "sample"):
        match = re.fullmatch(re.escape(prefix) + r"(.+), (\d+) steps?", name)
        if match:
            methods.setdefault(match[1], {})[int(match[2])] = name
    for method in (METHOD, BASE):
        if method not in methods:
            raise ValueError(f"table: no row {prefix + method!r}; run the whole table")
    return methods


def mean(rows: list[dict], name: str, metric: str) -> float:
    """Mean of a metric of a row over its seeds."""
    return statistics.fmean(by_seed(rows, name, metric).values())


def shared_difference(rows: list[dict], first: str, second: str, metric: str) -> str:
    """Mean of first - second over their common seeds, with its interval (Student's)."""
    one, other = by_seed(rows, first, metric), by_seed(rows, second, metric)
    shared = [one[seed] - other[seed] for seed in one if seed in other]
    if len(shared) < 2:
        return f"{mean(rows, first, metric) - mean(rows, second, metric):+.2f} (one seed)"
    interval = student(shared)
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}], {len(shared)} seeds"
