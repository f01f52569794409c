"""Rows of the tables at the published scale that are compiled: one of each method of a table, and no program twice."""

from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

import configs
from experiments.identity import default_fields, differences, digest, to_json, training_fields
from experiments.plan import resolve, trains

# What a training step reads of these sections; data of one shape, and rates of one optimizer, are one program.
READ = {
    "data": ("length", "source_length", "vocab_size"),
    "train": ("batch", "accumulate"),
    "optimizer": ("blocks", "decayed"),
}


class Recipe(NamedTuple):
    """A row of a table with its config, and the other tables that have a row with the same training step."""

    table: str
    row: str
    config: ConfigDict
    shared: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Hash of what its config changes, on which the training step and the sampler depend."""
        return digest(differences(to_json(self.config), default_fields()))


def tables() -> dict[str, ModuleType]:
    """All config files with a table, by name."""
    names = sorted(path.stem for path in Path(configs.__path__[0]).glob("*.py"))
    modules = {name: import_module(f"configs.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "TABLE")}


def structure(config: ConfigDict) -> dict:
    """The fields that a training step is compiled from; of a real number, whether it is zero."""
    fields = to_json(config)
    parts = training_fields(fields) | {"mesh": fields["mesh"]}
    for name in ("seed", "checkpoint"):
        parts.pop(name, None)
    for name, kept in READ.items():
        parts[name] = {key: parts[name][key] for key in kept}
    return mapped(parts, lambda value: bool(value) if isinstance(value, float) else value)


def choices(config: ConfigDict) -> dict:
    """The structure without its counts, and the data: rows of one table that differ in it are different methods."""
    counts = mapped(structure(config), lambda value: None if type(value) is int else value)
    return counts | {"source": config.data.source}


def mapped(tree: Any, function) -> Any:
    """JSON data with a function of all its values."""
    if isinstance(tree, dict):
        return {key: mapped(value, function) for key, value in tree.items()}
    return [mapped(value, function) for value in tree] if isinstance(tree, list) else function(tree)


def trained(module: ModuleType) -> Iterator[tuple[str, ConfigDict]]:
    """Rows of a table at the published scale that need a trained network, with their configs."""
    table = module.get_config("paper")
    for row in module.rows(table):
        config = resolve(table, row["overrides"], table.seeds[0])
        if trains(config):
            yield row["name"], config


def representatives(module: ModuleType) -> Iterator[tuple[int, str, ConfigDict]]:
    """One trained row of each method of a table, with its rank among those of its data.

    Of rows whose programs differ in counts alone it is the last, which has the most sub-tokens or the largest blocks.
    """
    programs, methods = {}, {}
    for name, config in trained(module):
        programs.setdefault(digest(structure(config)), (name, config))
    for name, config in programs.values():
        methods[digest(choices(config))] = (name, config)
    ranks = Counter()
    for name, config in methods.values():
        yield ranks[config.data.source], name, config
        ranks[config.data.source] += 1


def recipes(modules: Mapping[str, ModuleType], limit: int = 0) -> list[Recipe]:
    """The rows to compile, at most `limit` of a table, with each data set's first row before any second one.

    A program that several tables have is compiled for the one with the fewest methods.
    """
    listed = {table: sorted(representatives(module), key=lambda each: each[0]) for table, module in modules.items()}
    found: dict[str, tuple[int, Recipe]] = {}
    for table in sorted(listed, key=lambda name: len(listed[name])):
        for rank, row, config in listed[table][: limit or None]:
            key = digest(structure(config))
            if key not in found:
                found[key] = (rank, Recipe(table, row, config))
            elif table not in (found[key][1].table, *found[key][1].shared):
                rank, known = found[key]
                found[key] = (rank, known._replace(shared=(*known.shared, table)))
    return [recipe for _, recipe in sorted(found.values(), key=lambda each: each[0])]


def untrained(modules: Mapping[str, ModuleType]) -> list[str]:
    """Tables at the published scale without a network that is trained."""
    return [table for table, module in modules.items() if next(trained(module), None) is None]
