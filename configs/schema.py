"""Fields of a config with the values that they can have: bounds of numbers, and choices of names.

What depends on several fields or on data is checked where it is used.
"""

import math
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included, but for `low` where `above` and `high` where `below`."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: object) -> bool:
        """Returns whether a value is a number in the range; NaN is in none."""
        if not isinstance(value, (int, float)):
            return False
        high_enough = self.low < value if self.above else self.low <= value
        return high_enough and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """The range as an error states it."""
        if self.high < math.inf:
            return f"lie in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"
        if self.low == 0:
            return "be positive" if self.above else "not be negative"
        return f"be at least {self.low:g}"


class Field(NamedTuple):
    """The default of a field, and the range of its number, or of each element of its tuple, or the known names."""

    default: Any
    allowed: Range | tuple[str, ...]


def at_least(low: float, default: Any) -> Field:
    """A number not below `low`."""
    return Field(default, Range(low))


def count(default: Any) -> Field:
    """A number from 1."""
    return at_least(1, default)


def not_negative(default: Any) -> Field:
    """A number from 0."""
    return at_least(0, default)


def positive(default: Any) -> Field:
    """A number above 0."""
    return Field(default, Range(0, above=True))


def share(default: Any) -> Field:
    """A number from 0 to 1."""
    return Field(default, Range(0, 1))


def up_to_one(default: Any) -> Field:
    """A number above 0, up to 1."""
    return Field(default, Range(0, 1, above=True))


def below_one(default: Any) -> Field:
    """A number from 0, below 1."""
    return Field(default, Range(0, 1, below=True))


def choice(default: str, *others: str) -> Field:
    """One of several names."""
    return Field(default, (default, *others))


def default_values(fields: dict) -> dict:
    """The defaults of nested fields."""
    return {
        name: default_values(each) if isinstance(each, dict) else each.default if isinstance(each, Field) else each
        for name, each in fields.items()
    }


def check_values(values: dict, fields: dict, section: str = "") -> None:
    """Raise ValueError for a value that its field cannot have."""
    for name, field in fields.items():
        value, place = values[name], f"{section}{name}"
        if isinstance(field, dict):
            check_values(value, field, f"{place}.")
        elif not isinstance(field, Field):
            continue
        elif isinstance(field.allowed, Range):
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if each not in field.allowed:
                    raise ValueError(f"{place}: must {field.allowed}, not {each!r}")
        elif value not in field.allowed:
            raise ValueError(f"{place}: unknown {value!r}; known: {', '.join(sorted(field.allowed))}")
