"""Defaults of all fields: ids of jobs are hashes of the differences from them, so a changed default would keep ids."""

import copy
import json
from pathlib import Path

import pytest

from experiments.identity import IDENTITY, default_fields

FILE = Path(__file__).with_name("defaults.json")


def flat(fields, section=""):
    """Return the value of every field by its full name."""
    values = {}
    for name, value in fields.items():
        nested = isinstance(value, dict) and value
        values |= flat(value, f"{section}{name}.") if nested else {f"{section}{name}": value}
    return values


def changed(values, recorded):
    """Return the defaults that differ from their record, as text; under another identity they may."""
    same = recorded["identity"] == IDENTITY
    names = [name for name in values if name in recorded["defaults"] and values[name] != recorded["defaults"][name]]
    return [f"{name} {values[name]!r} was {recorded['defaults'][name]!r}" for name in names] if same else []


def test_defaults_do_not_change(request):
    values, recorded = flat(default_fields()), json.loads(FILE.read_text())
    lines = changed(values, recorded)
    assert not lines, f"a default does not change; add a field, or change the recipe: {'; '.join(lines)}"
    if request.config.getoption("update_golden"):
        entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(values[name])}" for name in sorted(values))
        FILE.write_text(f'{{"identity": {IDENTITY},\n"defaults": {{\n{entries}\n}}}}\n')
        return
    names = sorted(values.keys() ^ recorded["defaults"].keys())
    assert not names and recorded["identity"] == IDENTITY, (
        f"new or deleted fields: {', '.join(names)}; run `pytest tests/golden --update-golden`"
    )


@pytest.mark.parametrize(("field", "value"), [("train.steps", 7), ("sample.remask.eta", 0.5), ("data.path", "x")])
def test_a_changed_default_is_found(field, value):
    fields = copy.deepcopy(default_fields())
    *sections, key = field.split(".")
    part = fields
    for section in sections:
        part = part[section]
    part[key] = value
    recorded = json.loads(FILE.read_text())
    assert [line.split()[0] for line in changed(flat(fields), recorded)] == [field]
    assert not changed(flat(fields), recorded | {"identity": IDENTITY - 1})
