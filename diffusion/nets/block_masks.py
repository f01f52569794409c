"""Attention masks of block diffusion (BD3-LM, arXiv 2503.09573)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Bool

from diffusion.nets.attention_masks import Keys, Queries


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
    """The mask in training, on `length` noisy positions and then as many clean ones.

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
