"""What differs among the rows of a table that should be alike: their data, commits, devices and packages."""

import json
from collections import Counter
from collections.abc import Sequence

from diffusion.report.rows import PACKAGES


def mixed_data(rows: Sequence[dict]) -> str:
    """A sentence on sources whose content differs among the rows, such as another Python's standard library."""
    found: dict[str, dict[str, set]] = {}
    for row in rows:
        data = {name: value for name, value in row["config"]["data"].items() if name != "cache_dir"}
        found.setdefault(json.dumps(data, sort_keys=True), {}).setdefault(row.get("data", ""), set()).add(row["row"])
    mixed = [[min(names) for names in versions.values()] for versions in found.values() if len(versions) > 1]
    return "".join(
        f" The data of {' and '.join(map(repr, each))} differ; these rows cannot be compared." for each in mixed
    )


def commits(rows: Sequence[dict]) -> list[str]:
    """The commits of the rows, in alphabetical order."""
    return sorted({row["commit"] for row in rows})


def usual_commit(rows: Sequence[dict]) -> str:
    """The commit of most rows."""
    return Counter(row["commit"] for row in rows).most_common(1)[0][0]


def device(row: dict) -> str:
    """Number and kind of the devices of a row, with the work directory where the kind does not name the processor."""
    place = f" of {row['place']}" if "place" in row and row["device_kind"] == "cpu" else ""
    return f"{row['device_count']} x {row['device_kind']}{place}"


def packages(row: dict) -> str:
    """Versions of Python and the packages of a row, in a fixed order, as keys of stored rows are sorted by name."""
    return ", ".join(f"{name} {row['versions'][name]}" for name in ("python", *PACKAGES) if name in row["versions"])


def environments(rows: Sequence[dict]) -> str:
    """Devices and packages of the rows, each once."""
    found = dict.fromkeys((device(row), packages(row)) for row in rows)
    if len({versions for _, versions in found}) == 1:
        return f"{' and '.join(name for name, _ in found)} ({next(iter(found))[1]})"
    return " and ".join(f"{name} ({versions})" for name, versions in found)
