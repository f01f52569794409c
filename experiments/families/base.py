"""Looking a name of a config up."""

from typing import Any


def pick(table: dict[str, Any], name: str, field: str) -> Any:
    """Look a name up; raises ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(sorted(table))}")
    return table[name]
