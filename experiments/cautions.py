"""What a reader of results must know first: failed and missing jobs, mixed commits, data, devices, and old tables."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.mixtures import device, mixed_data, packages
from experiments.states import State, amount, title


def of_jobs(found: Sequence[State]) -> list[str]:
    """A sentence for each failed job, and one for the numbers of jobs that are not done otherwise."""
    failed = [f"{title(each.job)} failed: {each.detail}" for each in found if each.name == "failed"]
    counts = Counter(each.name for each in found if each.name in ("running", "stopped", "waiting"))
    listed = ", ".join(f"{count} {'interrupted' if name == 'stopped' else name}" for name, count in counts.items())
    return [*failed, *([f"Not done, of {amount(len(found), 'job')}: {listed}."] if listed else [])]


def of_rows(rows: Sequence[dict]) -> list[str]:
    """Sentences on results that come from more than one commit, kind of device, set of packages, or version of data."""
    found = []
    for name, what in (("commits", "commit"), ("devices", device), ("versions of packages", packages)):
        counts = Counter(row[what] if isinstance(what, str) else what(row) for row in rows)
        if len(counts) > 1:
            listed = "; ".join(f"{value}, {amount(count, 'job')}" for value, count in counts.most_common())
            found.append(f"The results come from several {name}: {listed}.")
    changed = sorted({row["commit"] for row in rows if row["commit"].endswith("+") or row["commit"] == "unknown"})
    if changed:
        found.append(f"Sources were changed or not in a repository ({', '.join(changed)}): no commit holds them.")
    return found + ([mixed_data(rows).strip()] if mixed_data(rows) else [])


def of_tables(folders: Sequence[Path], workdir: Path, rows: Sequence[dict]) -> list[str]:
    """A sentence for each table that is partial, or older than results of its jobs."""
    found = []
    for folder in folders:
        text, written = (folder / "table.md").read_text(errors="replace"), (folder / "table.md").stat().st_mtime
        if "\nPartial table: " in text:
            found.append(f"{folder.name} is a partial table.")
        own = [row for row in rows if f"{row['config']['table']}.{row['config']['variant']}" == folder.name]
        results = [workdir / "jobs" / row["job"] / "result.json" for row in own]
        if newer := sum(each.stat().st_mtime > written for each in results):
            found.append(
                f"{folder.name} is older than {amount(newer, 'result')}; write it again with `launch.py table`."
            )
    return found
