"""Sweeps: every combination of values of some config fields, for each row of a table that reads these fields.

    python launch.py run --config=configs/quickstart.py:local --sweep.optimizer.learning_rate=1e-3,3e-3 --sweep.seeds=3

The same in a table is `TABLE["sweep"] = {"optimizer.learning_rate": (1e-3, 3e-3), "seeds": 3}`. A swept table is a
table with other rows and columns, so that plans and jobs know nothing of sweeps.
"""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from experiments import settings
from experiments.expansion import Axis, expand

MOST_SEEDS = 9999


def swept(module: ModuleType, config: ConfigDict, words: Sequence[str], pivots: Sequence[str] = ()) -> ModuleType:
    """The table with the rows of its sweep, and the seeds of the sweep in the config; the table itself without a sweep.

    Args:
      words: the sweep of the command line, as FIELD=a,b,c, which replaces the values of the same field in the table.
      pivots: metrics of the pivot tables, as METRIC:min or METRIC:max.

    Raises:
      ValueError: for an unknown field, a value of another type, a field that no row reads, or an unknown metric.
    """
    given = read_words(words)
    chosen = module.TABLE.get("sweep", {}) | given
    if pivots and not chosen.keys() - {"seeds"}:
        raise ValueError("--pivot: shows the rows of a sweep; pass --sweep.FIELD=a,b,c as well")
    if not chosen:
        return module
    seeds = chosen.pop("seeds", None)
    if seeds is not None and ("seeds" in given or config.seeds == module.get_config(config.variant).seeds):
        config.seeds = tuple(range(seed_count(seeds)))
    axes = named({field: values_of(field, values, config) for field, values in chosen.items()})
    table = ModuleType(module.__name__)
    table.__dict__.update(vars(module))
    table.__dict__["TABLE"] = described(module.TABLE, axes, given, words, pivots)
    table.__dict__["rows"] = lambda config: expand(list(module.rows(config)), config, axes)
    unread = {axis.field for axis in axes} - {field for row in table.rows(config) for field in row.get("point", ())}
    if unread:
        raise ValueError(f"sweep.{min(unread)}: no row of {config.table} reads this field; leave it out")
    return table


def check_flags(
    verb: str, words: Sequence[str], pivots: Sequence[str], jobs: str, publish: bool, committed: bool
) -> None:
    """Raise ValueError for a sweep that does not go with the other flags."""
    if (words or pivots) and (verb not in ("run", "plan", "table") or jobs):
        other = "--jobs, whose plan has the rows" if jobs else verb
        raise ValueError(f"--sweep: goes with --config of run, plan and table, not with {other}; leave it out")
    if words and (publish or committed):
        flag = "--publish" if publish else "--results"
        raise ValueError(f"--sweep: goes without {flag}; write the sweep in the config file, TABLE['sweep']")


def read_words(words: Sequence[str]) -> dict[str, Any]:
    """The values of every field on the command line, as text; raises ValueError for a field without any, or twice."""
    found: dict[str, Any] = {}
    for word in words:
        field, _, text = word.partition("=")
        if not field or not text:
            raise ValueError(f"sweep.{field}: has no values; pass --sweep.FIELD=a,b,c")
        if field in found:
            raise ValueError(f"sweep.{field}: is given twice; pass all values at once, --sweep.{field}=a,b,c")
        found[field] = text.split(",")
    return found


def seed_count(given: Any) -> int:
    """The number of seeds, from text or from a table; raises ValueError unless it is a positive integer."""
    text = ",".join(given) if isinstance(given, list) else str(given)
    if not text.isdecimal() or len(text) > len(str(MOST_SEEDS)) or not 1 <= int(text) <= MOST_SEEDS:
        raise ValueError(f"sweep.seeds: must be the number of seeds, from 1 to {MOST_SEEDS}, such as 3, not {text!r}")
    return int(text)


def values_of(field: str, values: Iterable[Any], config: ConfigDict) -> tuple[Any, ...]:
    """Values of a field in the type of its default; raises ValueError for a field or a value that cannot be swept."""
    if field == "seed":
        raise ValueError("sweep.seed: the plan sets it; pass the number of seeds, --sweep.seeds=3")
    kind = type(settings.field_value(config, field, f"sweep.{field}"))
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"sweep.{field}: must be a tuple of values, not {values!r}")
    typed = tuple(convert(value, kind, field) for value in values)
    if not typed or len(set(typed)) < len(typed):
        raise ValueError(f"sweep.{field}: must have values that differ, not {', '.join(map(str, typed)) or 'none'}")
    return typed


def convert(value: Any, kind: type, field: str) -> Any:
    """A value, or its text, as `kind`; raises ValueError for another type."""
    try:
        if isinstance(value, str) and kind is bool:
            return {"true": True, "false": False}[value.lower()]
        if isinstance(value, str) or type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
    except (KeyError, ValueError):
        pass
    raise ValueError(f"sweep.{field}: {value!r} is not of the type of this field, {kind.__name__}")


def named(values: dict[str, tuple[Any, ...]]) -> tuple[Axis, ...]:
    """Axes, each with the shortest end of its field that no other field has."""

    def name(field: str) -> str:
        parts = field.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        return next(end for end in ends if sum(f".{each}".endswith(f".{end}") for each in values) == 1)

    return tuple(Axis(field, each, name(field)) for field, each in values.items())


def described(table: dict, axes: Sequence[Axis], given: dict, words: Sequence[str], pivots: Sequence[str]) -> dict:
    """What a swept table says of itself: its axes as columns, its pivot tables, and the words that make it.

    Plots of rows by their names are left out, because the names change. A sweep of the command line has a folder of its
    own, unless it only has seeds.

    Raises:
      ValueError: for a pivot table of what is not a column.
    """
    keys = [column[0] for column in table["columns"]]
    added = [axis for axis in axes if f"config.{axis.field}" not in keys]
    chosen = []
    for each in (text.rpartition(":") for text in pivots):
        metric, direction = (each[0], each[2]) if each[2] in ("min", "max") else ("", "")
        if metric not in keys:
            text = "".join(each)
            raise ValueError(f"--pivot: {text!r} is not COLUMN:min or COLUMN:max; columns are {', '.join(keys)}")
        chosen.append((metric, direction))
    own = [axis.name for axis in axes if axis.field in given]
    return table | {
        "axes": tuple(axes),
        "columns": (*((f"config.{axis.field}", axis.name, "g") for axis in added), *table["columns"]),
        "plots": tuple(each for each in table.get("plots", ()) if not (axes and {"series", "course"} & each.keys())),
        "pivots": tuple(chosen) or table.get("pivots", ()),
        "suffix": "." + "+".join(own) if own else "",
        # The command in the table's notes has the seeds as a field.
        "words": "".join(f" --sweep.{word}" for word in words if not word.startswith("seeds="))
        + "".join(f" --pivot={each}" for each in pivots),
    }
