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


@dataclass(frozen=True)
class BlockCausal:
    """A query reads the keys of its own block and of earlier ones, of the last `window` positions unless 0."""

    block: int
    window: int = 0
    reads_ahead = False

    def allowed(self, queries: Queries, keys: Keys) -> Bool[Array | np.ndarray, "Q M"]:
        own, other = queries // self.block, keys // self.block
        near = own - other < self.window // self.block if self.window else own >= 0
        return (other <= own) & near


@dataclass(frozen=True)
class NoisyAndClean:
    """The mask of block diffusion (BD3-LM, arXiv 2503.09573) on `length` noisy positions and then as many clean ones.

    A noisy query reads the noisy keys of its own block and the clean keys of earlier blocks. A clean query reads the
    clean keys of its own block and of earlier ones. One pass so predicts every block given the clean blocks before it.
    """

    length: int
    block: int
    reads_ahead = True

    def allowed(self, queries: Queries, keys: Keys) -> Bool[Array | np.ndarray, "Q M"]:
        own, other = queries % self.length // self.block, keys % self.length // self.block
        noisy_query, noisy_key = queries < self.length, keys < self.length
        same_block = noisy_query & noisy_key & (own == other)
        earlier = noisy_query & ~noisy_key & (other < own)
        return same_block | earlier | (~noisy_query & ~noisy_key & (other <= own))
