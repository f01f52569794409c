"""The schema of fields: complete, true of the defaults, and enforced."""

import math

from experiments.identity import default_fields
from experiments.schema import BOUNDS, CHOICES, COUNT, POSITIVE, SHARE, check_values
from tests.checks import refused

UNBOUNDED = {"seed", "data.seed", "mesh.data", "mesh.fsdp", "mesh.model"}


def leaves(fields: dict, section: str = ""):
    """Yields the names and values of all fields."""
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def check(field: str, value) -> None:
    """Check one field in its sections."""
    for name in reversed(field.split(".")):
        value = {name: value}
    check_values(value)


def test_every_number_has_bounds_and_every_entry_is_a_field():
    known = dict(leaves(default_fields()))
    assert (BOUNDS.keys() | CHOICES.keys()) <= known.keys()
    numbers = {name for name, value in known.items() if type(value) in (int, float)}
    assert numbers - BOUNDS.keys() == UNBOUNDED
    check_values(default_fields())


def test_every_bound_and_choice_is_enforced():
    for field, values in BOUNDS.items():
        for value in (values.low - 1, math.nan, "3") + ((values.high + 1,) if values.high < math.inf else ()):
            with refused(f"{field}: must .*, not {value!r}"):
                check(field, value)
        check(field, values.low + 1e-9)
    for field, names in CHOICES.items():
        with refused(f"{field}: unknown 'other'; known: .*{sorted(names)[-1]}"):
            check(field, "other")


def test_ranges():
    assert str(COUNT) == "be at least 1" and 1 in COUNT and 0.5 not in COUNT
    assert str(SHARE) == "lie in [0, 1]" and 0 in SHARE and 1 in SHARE and 1.01 not in SHARE
    assert str(POSITIVE) == "be positive" and 1e-9 in POSITIVE and 0 not in POSITIVE


def test_elements_of_tuples_are_checked():
    with refused("unet.multipliers: must be at least 1, not 0"):
        check("unet.multipliers", [3, 0])
