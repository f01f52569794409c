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
    """The default of a field, and what it can be.

    That is the range of its number, or of each element of its tuple, or the known names, or the type of the elements of
    a tuple that is empty by default.
    """

    default: Any
    allowed: Range | tuple[str, ...] | type


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


def tuple_of(kind: type) -> Field:
    """A tuple of numbers or of texts, empty by default."""
    return Field((), kind)


def default_values(fields: dict) -> dict:
    """The defaults of nested fields."""
    return {
        name: default_values(each) if isinstance(each, dict) else each.default if isinstance(each, Field) else each
        for name, each in fields.items()
    }


LARGEST = 2**31 - 1  # what arrays hold on devices
KINDS = {bool: "be True or False", int: "be a whole number", float: "be a finite number", str: "be a text"}


def fits(value: Any, default: Any) -> bool:
    """Returns whether a value has the type of a default; numbers are finite, and tuples hold what the default holds."""
    if isinstance(default, tuple):
        return isinstance(value, (list, tuple)) and all(fits(each, default[0] if default else each) for each in value)
    if isinstance(default, float) and isinstance(value, (int, float)) and not isinstance(value, bool):
        return -math.inf < value < math.inf
    return type(value) is type(default) and type(default) in KINDS


def kind_of(default: Any) -> str:
    """The type of a default as an error states it."""
    if not isinstance(default, tuple):
        return KINDS[type(default)]
    return "be a tuple" + (f" whose elements must {KINDS[type(default[0])]}" if default else "")


def check_values(values: dict, fields: dict, section: str = "") -> None:
    """Raise ValueError for a value that its field cannot have."""
    for name, field in fields.items():
        value, place = values[name], f"{section}{name}"
        if isinstance(field, dict):
            check_values(value, field, f"{place}.")
            continue
        default, allowed = field if isinstance(field, Field) else (field, None)
        like = (allowed(),) if isinstance(allowed, type) else default
        if not fits(value, like):
            raise ValueError(f"{place}: must {kind_of(like)}, not {value!r}")
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(allowed, Range) and each not in allowed:
                raise ValueError(f"{place}: must {allowed}, not {each!r}")
            if type(each) is int and abs(each) > LARGEST:
                raise ValueError(f"{place}: must not exceed {LARGEST}, not {each!r}")
        if isinstance(allowed, tuple) and not isinstance(allowed, Range) and value not in allowed:
            raise ValueError(f"{place}: unknown {value!r}; known: {', '.join(sorted(allowed))}")
