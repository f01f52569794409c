"""Results of jobs: `result.json` in a job's folder, whose own hash shows damage and edits."""

import hashlib
import json
from pathlib import Path

from diffusion.storage import atomic_write

FILE = "result.json"
HASH = "sha256"
REMEDY = "and give the command again, which computes it from what the folder has"
# What every result of a job has.
ENTRIES = {"job": str, "verb": str, "row": str, "seed": int, "config": dict, "metrics": dict, "commit": str}
ENTRIES |= {"versions": dict, "device_kind": str, "device_count": int}


def hash_of(row: dict) -> str:
    """Hash of all entries of a row but the hash itself."""
    return hashlib.sha256(json.dumps({**row, HASH: None}, sort_keys=True).encode()).hexdigest()


def check_rows(rows: list[dict]) -> None:
    """Raise ValueError for a result that lacks what tables and reports read, as one without a hash may."""
    for row in rows:
        if not whole(row):
            raise ValueError(f"results: {FILE} of {row.get('job')} is damaged; delete it {REMEDY}")


def whole(row: dict) -> bool:
    """Returns whether a result has all that tables and reports read, in the types that they expect."""
    history = row.get("history", [])
    if not all(isinstance(row.get(name), kind) for name, kind in ENTRIES.items()) or not isinstance(history, list):
        return False
    config = row["config"]
    sections = [config.get(name) for name in ("data", "objective")]
    named = [config.get(name) for name in ("table", "variant")] + [row.get("data", "")]
    numbers = [each for record in history if isinstance(record, dict) for each in record.values()]
    return (
        all(isinstance(each, dict) for each in [*sections, *history])
        and all(isinstance(each, str) for each in [*named, sections[0].get("source"), sections[0].get("path")])
        and all(isinstance(each, int | float | str | None) for each in row["metrics"].values())
        and all(isinstance(each, int | float) for each in numbers)
    )


def write_result(folder: Path, row: dict) -> None:
    """Write the result of a job, which is then done."""
    # As it will be read: with lists for tuples, and texts for keys.
    row = json.loads(json.dumps(row))
    atomic_write(folder / FILE, json.dumps(row | {HASH: hash_of(row)}, indent=1) + "\n")


def read_result(folder: Path) -> dict:
    """Read the result of a job.

    Raises:
      ValueError: for a file that is damaged, or was edited after it was written.
    """
    file = folder / FILE
    try:
        row = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(f"results: {file} is damaged; delete {file} {REMEDY}")
    if row.get(HASH) is not None and row[HASH] != hash_of(row):
        raise ValueError(f"results: {file} is not what was written; delete {file} {REMEDY}")
    return {key: value for key, value in row.items() if key != HASH}
