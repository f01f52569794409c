"""Result rows: one JSON object per job, with all information to run it again."""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import jax

from diffusion.storage import atomic_write

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def provenance() -> dict:
    """Return the commit, versions and devices of this process."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device_kind": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "processes": jax.process_count(),
    }


def commit() -> str:
    """Return the commit of the sources, with "+" if they have changes, or "unknown" without a git repository."""
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "requirements.txt")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read_rows(path: Path) -> list[dict]:
    """Return all rows of a file of results, or none without a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def write_rows(path: Path, rows: list[dict]) -> None:
    """Write a file of results, and replace a previous one."""
    atomic_write(path, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
