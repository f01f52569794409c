"""Results of jobs: `result.json` in a job's folder, whose own hash shows damage and edits."""

import hashlib
import json
from pathlib import Path

from diffusion.storage import atomic_write

FILE = "result.json"
HASH = "sha256"


def hash_of(row: dict) -> str:
    """Hash of all entries of a row but the hash itself."""
    return hashlib.sha256(json.dumps({**row, HASH: None}, sort_keys=True).encode()).hexdigest()


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
    remedy = f"delete {file} and give the command again, which computes it from what the folder has"
    try:
        row = json.loads(file.read_bytes())
        recorded = row.get(HASH)
    except (ValueError, AttributeError):
        raise ValueError(f"results: {file} is damaged; {remedy}") from None
    if recorded is not None and recorded != hash_of(row):
        raise ValueError(f"results: {file} is not what was written; {remedy}")
    return {key: value for key, value in row.items() if key != HASH}
