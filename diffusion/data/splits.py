"""Splits by hash: a key is in the same split on every machine, independently of the other keys."""

import hashlib

NAMES = ("train", "validation", "test")


def md5_number(key: str) -> int:
    """md5 of the key as a number; the first keys in its order are a fair sample of all."""
    return int(hashlib.md5(key.encode("utf-8", "surrogateescape")).hexdigest(), 16)


def split_of(key: str) -> str:
    """Split of a key by its md5 modulo 100: validation below 5, test below 10, else train."""
    bucket = md5_number(key) % 100
    return "validation" if bucket < 5 else "test" if bucket < 10 else "train"
