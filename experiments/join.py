"""Rows of a table from the job folders of several work directories, such as seeds that ran on several machines."""

from collections.abc import Sequence
from pathlib import Path

from experiments.layout import check_layout
from experiments.machines import TIMES
from experiments.mixtures import commits, device, mixed_data, usual_commit
from experiments.plan import Job
from experiments.results import check_rows, read_result

# What may differ between two results of one job.
ORIGIN = ("row", "config", "commit", "versions", "device_kind", "device_count", "processes")


def rows_of(jobs: list[Job], places: Sequence[Path]) -> list[dict]:
    """Results of the jobs that are done in any of the work directories, the first of which is that of the table.

    A job that is done in several of them has the result of the first, with which the others must agree. With several
    work directories each row names its own as `place`.

    Raises:
      ValueError: for a work directory without a job of this table, results of one job that differ, or other data.
    """
    for place in places[1:]:
        if not place.is_dir():
            raise ValueError(f"--join: {place} does not exist; pass a work directory of `launch.py run`")
        if not any(job.done(place) for job in jobs):
            raise ValueError(
                f"--join: no job of this table is done in {place}; pass the flags and the data with which it ran, or "
                "leave it out"
            )
    for place in places:
        check_layout(place)
    rows = []
    for job in jobs:
        found = [(place, read_result(job.folder(place)) | {"row": job.row}) for place in places if job.done(place)]
        for place, row in found[1:]:
            if name := difference(found[0][1], row):
                raise ValueError(
                    f"--join: {job.id} has another {name} in {place} than in {found[0][0]}; leave one of them out, or "
                    "copy the folder of the job from one to the other and run what needs it again"
                )
        if found:
            place, row = found[0]
            rows.append(row | ({"place": str(place)} if len(places) > 1 else {}))
    check_rows(rows)
    if len(places) > 1:
        check_data(rows)
    return rows


def difference(one: dict, other: dict) -> str:
    """The first entry in which two results of a job differ beside times and origin, such as "metrics.bits_per_byte"."""
    for name in sorted(one.keys() | other.keys() - set(ORIGIN)):
        if name in ORIGIN or name.startswith(TIMES):
            continue
        first, second = one.get(name), other.get(name)
        if isinstance(first, dict) and isinstance(second, dict):
            if inner := difference(first, second):
                return f"{name}.{inner}"
        elif timeless(first) != timeless(second):
            return name
    return ""


def timeless(value: object) -> object:
    """A value without the times in it."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if not name.startswith(TIMES)}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def check_data(rows: list[dict]) -> None:
    """Raise ValueError where results of one row, or rows of one source, come from different data."""
    seen: dict[str, dict] = {}
    for row in (row for row in rows if row.get("data")):
        first = seen.setdefault(row["row"], row)
        if first["data"] != row["data"]:
            raise ValueError(
                f"--join: the data of {row['row']!r} in {row['place']} differ from those in {first['place']}; "
                "leave one of them out"
            )
    if problem := mixed_data(rows):
        raise ValueError(f"--join:{problem.rstrip('.')}; leave out the work directory with other data")


def by_device(rows: list[dict], keys: Sequence[str]) -> tuple[list[dict], str]:
    """Rows with the number of their device as `mark`, and a sentence on these numbers.

    Nothing is marked where all times, which are the metrics `keys`, are of one device, or where rows that are not
    joined have one each.
    """
    timed = [row for row in rows if any(row["metrics"].get(key) is not None for key in keys)]
    numbers = {name: f"[{number}]" for number, name in enumerate(dict.fromkeys(map(device, timed)), 1)}
    mixed = len({(row["row"], device(row)) for row in timed}) > len({row["row"] for row in timed})
    if len(numbers) < 2 or not (mixed or any("place" in row for row in rows)):
        return rows, ""
    named = " and ".join(f"{mark} {name}" for name, mark in numbers.items())
    marked = [row | {"mark": numbers.get(device(row), "")} for row in rows]
    return marked, f"Times are those of {named}, and are not averaged over devices."


def plotted(rows: list[dict]) -> list[dict]:
    """Rows for plots, which average: without their times where joined rows are of several devices."""
    if len({device(row) for row in rows if "place" in row}) < 2:
        return rows

    def kept(metrics: dict) -> dict:
        return {key: value for key, value in metrics.items() if not key.startswith(TIMES)}

    return [row | {"metrics": kept(row["metrics"])} for row in rows]


def other_commits(rows: list[dict]) -> tuple[set[str], str]:
    """Names of the rows with results of another commit than most of the joined rows, and a sentence on them."""
    joined = [row for row in rows if "place" in row]
    if len(commits(joined)) < 2:
        return set(), ""
    usual = usual_commit(joined)
    others = dict.fromkeys((row["row"], row["seed"], row["commit"]) for row in joined if row["commit"] != usual)
    listed = "; ".join(f"{name!r}, seed {seed}, at {commit}" for name, seed, commit in others)
    return {name for name, _, _ in others}, f"† Results of another commit than {usual}: {listed}."
