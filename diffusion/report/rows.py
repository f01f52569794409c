"""Result rows: one JSON object a job, with everything needed to run it again."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def provenance() -> dict:
    """Commit, versions and devices: where a number comes from."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "processes": jax.process_count(),
    }


def commit() -> str:
    """The commit of the sources, with "+" when they were changed since; "unknown" outside a git checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "requirements.txt")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read_rows(path: Path) -> list[dict]:
    """All rows of a results file; none when there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def write_rows(path: Path, rows: list[dict]) -> None:
    """Replace a results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
