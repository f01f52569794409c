"""Attention masks as values: which keys each query reads, as a function of their indices in a sequence.

A mask that depends on data, such as padding, is an array of booleans instead (see `attention.attend`).
"""

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Int

Queries = TypeVar("Queries", Int[Array, "Q 1"], Int[np.ndarray, "Q 1"])
Keys = TypeVar("Keys", Int[Array, "1 M"], Int[np.ndarray, "1 M"])


@runtime_checkable
class AttentionMask(Protocol):
    """A mask that is known before any data.

    `reads_ahead` says whether a query reads keys after its own block, so that keys and values cannot be cached.
    """

    @property
    def reads_ahead(self) -> bool: ...

    def allowed(self, queries: Queries, keys: Keys) -> Bool[Array | np.ndarray, "Q M"]:
        """Return whether each query reads each key, in the array library of the indices."""
        ...


@dataclass(frozen=True)
class Full:
    """Every query reads every key."""

    reads_ahead = True

    def allowed(self, queries: Queries, keys: Keys) -> Bool[Array | np.ndarray, "Q M"]:
        return (queries >= 0) & (keys >= 0)


@dataclass(frozen=True)
class Causal:
    """A query reads its own and earlier keys."""

    reads_ahead = False

    def allowed(self, queries: Queries, keys: Keys) -> Bool[Array | np.ndarray, "Q M"]:
        return keys <= queries
