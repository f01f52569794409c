"""Denoisers of masked sequences as denoisers of block diffusion."""

import jax.numpy as jnp

from diffusion.processes.blocks import BlockDiffusion
from diffusion.types import Denoise, Logits, Symbols, Times


def by_blocks(denoise: Denoise, process: BlockDiffusion) -> Denoise:
    """Evaluate a denoiser of sequences once per block, on clean earlier blocks, the noisy block, and masks after it.

    For the posterior of a language this is the exact denoiser of block diffusion.
    """

    def blocks(state: Symbols, time: Times) -> Logits:
        noisy, clean = jnp.split(state, 2, axis=1)
        block, length = process.block, noisy.shape[1]
        places = jnp.arange(length)[None] // block
        logits = []
        for start in range(0, length, block):
            own = start // block
            seen = jnp.where(places < own, clean, jnp.where(places == own, noisy, process.mask_id))
            logits.append(denoise(seen, time)[:, start : start + block])
        return jnp.concatenate(logits, axis=1)

    return blocks
