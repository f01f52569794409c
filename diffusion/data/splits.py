"""Splits by hash: a key is in the same split on every machine, independently of the other keys."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

NAMES = ("train", "validation", "test")
Item = TypeVar("Item")


def md5_number(key: str) -> int:
    """md5 of the key as a number; the first keys in its order are a fair sample of all."""
    return int(hashlib.md5(key.encode("utf-8", "surrogateescape")).hexdigest(), 16)


def split_of(key: str) -> str:
    """Split of a key by its md5 modulo 100: validation below 5, test below 10, else train."""
    bucket = md5_number(key) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"


def limits(keys: Iterable[str]) -> tuple[int, int]:
    """Limits of `split_below` for which 5 % of the distinct keys, at least one, are validation, and as many test.

    A small set has examples in each split, where `split_of` may give it none.
    Raises: ValueError for fewer than three keys.
    """
    numbers = sorted({md5_number(key) for key in keys})
    if len(numbers) < 3:
        raise ValueError(f"{len(numbers)} different parts cannot be training, validation and test")
    share = max(1, round(0.05 * len(numbers)))
    return numbers[share], numbers[2 * share]


def split_below(first: int, second: int) -> Callable[[str], str]:
    """Split of a key by its md5: validation below the first limit, test below the second, else train."""

    def split_of(key: str) -> str:
        number = md5_number(key)
        return "validation" if number < first else "test" if number < second else "train"

    return split_of


def shares(items: Sequence[Item]) -> dict[str, Sequence[Item]]:
    """Three items or more by split: the first and the second 5 %, and at least one, are validation and test."""
    part = max(1, round(0.05 * len(items)))
    return {"train": items[2 * part :], "validation": items[:part], "test": items[part : 2 * part]}
