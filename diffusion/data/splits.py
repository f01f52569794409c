"""Splits by hash: the same key is in the same split on every machine, whatever else is in the data."""

import hashlib

NAMES = ("train", "validation", "test")


def place(key: str) -> int:
    """The key's md5 as a number: an order in which the first of any count are drawn evenly from all."""
    return int(hashlib.md5(key.encode("utf-8", "surrogateescape")).hexdigest(), 16)


def split_of(key: str) -> str:
    """5 % validation and 5 % test, by the key's place modulo 100 (under 5, under 10); the rest is train."""
    bucket = place(key) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"
