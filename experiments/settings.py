"""Fields of configs beside the metrics of rows: which rows read a field, and `config.FIELD` as a column or an axis."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from experiments.families import family_of
from experiments.identity import job_fields, to_json
from experiments.plan import is_trained, resolve

PREFIX = "config."
LEARNING = ("optimizer", "train", "objective")  # sections that training alone reads
# What held-out data in place of samples depend on.
HELD_OUT = ("data", "judge", "quality", *(f"sample.{name}" for name in ("count", "repeats", "length", "infill")))


def field_value(config: ConfigDict, field: str, place: str) -> Any:
    """A number, a name or a truth value of a config; raises ValueError, which begins with `place`, for others."""
    value: Any = config
    for part in field.split("."):
        if not isinstance(value, ConfigDict) or part not in value:
            raise ValueError(f"{place}: no such field; the fields are in configs/base.py")
        value = value[part]
    if not isinstance(value, (bool, int, float, str)) or field in ("table", "variant"):
        raise ValueError(f"{place}: is not one number, name or truth value; name a field that is")
    return value


def text(value: Any) -> str:
    """A value for names and cells, in the shortest form that is exact."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def reads(row: dict, config: ConfigDict, field: str) -> bool:
    """Whether the result of a job of a row depends on a field, given the row's config.

    Jobs of other rows that it needs are left aside.
    """
    trained = is_trained(row, config)
    if not trained and field.partition(".")[0] in LEARNING:
        return False
    if config.sample.policy == "data":
        return any(f"{field}.".startswith(f"{name}.") for name in HELD_OUT)
    if family_of(config).CAUSAL and field == "sample.steps":
        return False  # one token a step
    fields = to_json(config)
    verbs = {*row["verbs"], "train"} if trained else {*row["verbs"]} - {"train"}
    return any(contains(job_fields(fields, verb), field) for verb in verbs)


def contains(fields: dict, field: str) -> bool:
    """Whether nested fields have one of that name."""
    part: Any = fields
    for name in field.split("."):
        if not isinstance(part, dict) or name not in part:
            return False
        part = part[name]
    return True


def keys_of(table: dict) -> Iterable[tuple[str, str]]:
    """The keys `config.FIELD` in columns and plots of a table, each with its place for errors."""
    found = [(column[0], "columns") for column in table["columns"]]
    for plot in table.get("plots", ()):
        found += [(plot[axis], f"plot {plot['name']!r}") for axis in ("x", "y") if axis in plot]
        found += [(key, f"plot {plot['name']!r}") for key in plot.get("by", ())]
        found += [(series[1], f"plot {plot['name']!r}") for series in plot.get("series", ())]
    return ((key, place) for key, place in found if key.startswith(PREFIX))


def check_keys(module: ModuleType, config: ConfigDict) -> None:
    """Raise ValueError for a column or a plot of a field that does not exist, that no row reads, or without numbers."""
    rows = [(row, resolve(config, row["overrides"], 0)) for row in module.rows(config)]
    for key, place in keys_of(module.TABLE):
        field = key.removeprefix(PREFIX)
        value = field_value(config, field, f"TABLE: {place}: {key}")
        if not any(reads(row, resolved, field) for row, resolved in rows):
            raise ValueError(f"TABLE: {place}: {key}: no row reads this field; leave it out")
        axes = [plot[axis] for plot in module.TABLE.get("plots", ()) for axis in ("x", "y") if axis in plot]
        if key in axes and isinstance(value, (str, bool)):
            raise ValueError(f"TABLE: {place}: {key}: an axis needs numbers, not {value!r}; use it in `by`")


def with_settings(module: ModuleType, config: ConfigDict, results: list[dict]) -> list[dict]:
    """Results of which the metrics have the fields that columns and plots show.

    The values are those of the table's rows: the config of a job that several rows share is that of one of them.
    """
    fields = {key.removeprefix(PREFIX) for key, _ in keys_of(module.TABLE)}
    fields |= {axis.field for axis in module.TABLE.get("axes", ())}
    shown: dict[str, dict] = {}
    for row in module.rows(config) if fields else ():
        resolved = resolve(config, row["overrides"], 0)
        read = [field for field in sorted(fields) if field in row.get("point", ()) or reads(row, resolved, field)]
        values = {f"{PREFIX}{field}": field_value(resolved, field, field) for field in read}
        shown[row["name"]] = {key: text(each) if isinstance(each, bool) else each for key, each in values.items()}
    return [each | {"metrics": each["metrics"] | shown.get(each["row"], {})} for each in results]
