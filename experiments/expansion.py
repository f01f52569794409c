"""The rows of a sweep: a row of the table for every combination of the values of the fields that it reads."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from experiments import settings
from experiments.plan import resolve, without

# Fields that name another row of the table, whose training the row needs.
REFERENCES = ("start", "sample.remask.planner_row", "predictor.judge")
ALONG_CURVES = ("sample.steps",)  # axes along the curves of a table's plots; others have a curve for each value


@dataclass(frozen=True)
class Axis:
    """A field of the config with the values that it takes, and its name in rows and columns."""

    field: str
    values: tuple[Any, ...]
    name: str


Point = dict[Axis, Any]


@dataclass(frozen=True)
class Expansion:
    """The rows of a table by name, its config, and the axes of the sweep."""

    table: dict[str, dict]
    config: ConfigDict
    axes: Sequence[Axis]

    def referenced(self, row: dict) -> list[tuple[str, dict]]:
        """The rows from which a row starts, or that plan or label for it, by the field that names them."""
        resolved = resolve(self.config, row["overrides"], 0)
        names = {field: settings.field_value(resolved, field, field) for field in REFERENCES}
        if resolved.predictor.kind == "none":
            del names["predictor.judge"]
        return [(field, self.table[name]) for field, name in names.items() if name in self.table]

    def axes_of(self, row: dict, seen: tuple[str, ...] = ()) -> list[Axis]:
        """The axes that the jobs of a row read, or the trainings of the rows that it needs; `seen` are left aside."""

        def read(axis: Axis) -> bool:
            points = (resolve(self.config, row["overrides"] | {axis.field: value}, 0) for value in axis.values)
            return any(settings.reads(row, point, axis.field) for point in points)

        found = [axis for axis in self.axes if read(axis)]
        for _, other in self.referenced(row):
            if other["name"] not in seen:  # the plan refuses rows that start from each other
                found += self.axes_of(trained(other), (*seen, row["name"]))
        return [axis for axis in self.axes if axis in found]

    def at_point(self, row: dict, base: str, point: Point, needed: dict[str, dict], seen: tuple[str, ...] = ()) -> dict:
        """A row, with the name `base` and the values of its axes.

        The rows that it needs have the same values, and are added to `needed`.
        """
        changes: dict[str, Any] = {axis.field: value for axis, value in point.items()}
        for field, other in self.referenced(row) if point else ():
            part = {axis: point[axis] for axis in self.axes_of(trained(other))}
            if part and other["name"] not in seen:
                start = self.at_point(other, other["name"], part, needed, (*seen, row["name"]))
                needed[start["name"]] = start
                changes[field] = start["name"]
        if not point:
            return row
        labels = {axis: f"{axis.name} {settings.text(value)}" for axis, value in point.items()}
        apart = tuple(label for axis, label in labels.items() if axis.field not in ALONG_CURVES)
        new = row | {"name": ", ".join((base, *labels.values())), "base": base, "overrides": row["overrides"] | changes}
        new |= {"point": {axis.field: value for axis, value in point.items()}, "curve": line(row.get("curve"), apart)}
        curves = {plot: line(label, apart) for plot, label in row.get("curves", {}).items()}
        return new | ({"curves": curves} if "curves" in row else {})


def expand(rows: list[dict], config: ConfigDict, axes: Sequence[Axis]) -> list[dict]:
    """The rows of a sweep, in the order of the table.

    Rows that only differ in swept fields become one. The judge of samples is the row without the sweep, so that all
    samples have the same one. Rows that others need are added without jobs of their own (`seeds` 0).

    Raises:
      ValueError: where two rows have the same name.
    """
    expansion = Expansion({row["name"]: row for row in rows}, config, axes)
    groups: dict[str, list[tuple[dict, list[Axis]]]] = {}
    for row in rows:
        read = expansion.axes_of(row)
        rest = without(row["overrides"], {axis.field: () for axis in read})
        # A row that reads no axis stays as it is, even where the table has another one with its fields.
        same = [rest, row["verbs"], row.get("seeds"), [axis.field for axis in read] or row["name"]]
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append((row, read))
    result: dict[str, dict] = {}
    needed: dict[str, dict] = {}
    for group in groups.values():
        row, read = group[0]
        base = common_name([each["name"] for each, _ in group])
        base = row["name"] if base in expansion.table else base
        for values in itertools.product(*(axis.values for axis in read)):
            new = expansion.at_point(row, base, dict(zip(read, values, strict=True)), needed)
            if new["name"] in result:
                raise ValueError(f"sweep: two rows would be called {new['name']!r}; give the table's rows other names")
            result[new["name"]] = new
    hidden = {"seeds": 0, "shown": False}
    others = expansion.table | needed
    return [*result.values(), *(row | hidden for name, row in others.items() if name not in result)]


def trained(row: dict) -> dict:
    """The training of a row alone."""
    return row | {"verbs": ("train",)}


def common_name(names: list[str]) -> str:
    """The parts that begin all names; the first name where there are none."""
    parts = zip(*(name.split(", ") for name in names), strict=False)
    return ", ".join(each[0] for each in itertools.takewhile(lambda each: len(set(each)) == 1, parts)) or names[0]


def line(label: str | tuple[str, ...] | None, apart: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """The label of a line of a plot, with the values of axes that have a line each."""
    if label is None or not apart:
        return label
    return (*((label,) if isinstance(label, str) else label), *apart)
