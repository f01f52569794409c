"""Spread of a table over machines: rows of committed seeds from other processors, thread counts or compiler flags.

    python -m experiments.machines quickstart.local "AVX2 vectors" runs/tables/quickstart.local/rows.jsonl

adds the rows of a run to `experiments/machines/`, from where the table states the spread, and `run` takes it into
account when it compares its own rows with the committed ones.
"""

import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from diffusion.report.rows import read_rows, write_rows
from diffusion.report.tables import Column

FOLDER = Path(__file__).parent / "machines"
FIELDS = ("row", "verb", "seed", "metrics", "job", "commit", "versions", "device_kind", "device_count")
TIMES = ("seconds", "rerank_seconds", "lookahead_seconds")  # prefixes of metrics that are of the machine alone


def read(table: str) -> list[dict]:
    """Rows of other machines for a table and its variant, such as "quickstart.local"."""
    return read_rows(FOLDER / f"{table}.jsonl")


def add(table: str, machine: str, rows: list[dict]) -> None:
    """Add the rows of a machine, and replace earlier ones of the same name; raises ValueError without rows."""
    if not rows:
        raise ValueError(f"machines: no rows of {table}; pass the rows.jsonl of a table that `launch.py run` wrote")
    others = [row for row in read(table) if row["machine"] != machine]
    new = [{"machine": machine} | {name: row[name] for name in FIELDS if name in row} for row in rows]
    write_rows(FOLDER / f"{table}.jsonl", others + new)


def differences(row: str, key: str, machines: Sequence[dict], committed: Sequence[dict]) -> list[float]:
    """For each machine, the mean difference of a metric from the committed rows of the same jobs.

    Ids of jobs stand for config, seed and data, so that rows of another config are not compared.
    """

    def by_job(rows: Sequence[dict]) -> dict[str, float]:
        return {each["job"]: each["metrics"][key] for each in rows if each["row"] == row and key in each["metrics"]}

    known, found = by_job(committed), []
    for machine in dict.fromkeys(each["machine"] for each in machines):
        values = by_job([each for each in machines if each["machine"] == machine])
        if common := values.keys() & known.keys():
            found.append(statistics.fmean(values[job] - known[job] for job in common))
    return found


def deviation(found: Sequence[float]) -> float:
    """The standard deviation of a machine, from differences between two of them: sqrt(mean(d^2) / 2)."""
    return math.sqrt(statistics.fmean(each**2 for each in found) / 2) if found else 0.0


def note(columns: list[Column], rows: list[str], machines: Sequence[dict], committed: Sequence[dict]) -> str:
    """The largest difference of every column between machines, as a sentence; empty without rows of other machines."""
    parts = []
    for column in columns:
        if column.key.startswith(TIMES):
            continue
        largest = {row: max(map(abs, differences(row, column.key, machines, committed)), default=0.0) for row in rows}
        if any(largest.values()):
            row = max(largest, key=lambda name: largest[name])
            parts.append(f"{column.title} {format(largest[row], column.format)} ({row})")
    if not parts:
        return ""
    names = "; ".join(dict.fromkeys(each["machine"] for each in machines))
    return f"The same seed on other machines ({names}) differs by at most: {'; '.join(parts)}."


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    try:
        add(sys.argv[1], sys.argv[2], read_rows(Path(sys.argv[3])))
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
