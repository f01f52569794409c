"""Command lines that use a converted folder: a row of a table, and the fields in which the folder differs from it."""

import functools
import shlex
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from experiments.plan import find_row, resolve


def command(verb: str, table: ModuleType, row: str, fields: Mapping[str, Any]) -> str:
    """The command of a verb for a row of the published scale; `fields` that the row has already are left out."""
    config = table.get_config("paper")
    resolved = resolve(config, find_row(list(table.rows(config)), row)["overrides"], 0)
    changed = {name: value for name, value in fields.items() if at(resolved, name) != value}
    words = [verb, f"--config=configs/{config.table}.py:paper", f"--row={row}"]
    words += [f"--config.{name}={value}" for name, value in changed.items()]
    return f"python launch.py {shlex.join(words)}"


def at(config: Any, name: str) -> Any:
    """The value of a field by its name with dots."""
    return functools.reduce(lambda section, key: section[key], name.split("."), config)
