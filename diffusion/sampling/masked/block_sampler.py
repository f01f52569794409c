"""The sampler of block diffusion: block after block, with the keys and values of finished blocks in a cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion.rng import fold
from diffusion.sampling.masked.sampler import Samples
from diffusion.sampling.masked.windows import summed
from diffusion.types import Keys, Tokens


def sample_blocks(
    sample: Callable[[Keys, Tokens, tuple[Int[Array, ""], Any]], Samples],
    write: Callable[[Tokens, Int[Array, ""], Any], Any],
    cache: Any,
    keys: Keys,
    prompt: Tokens,
    block: int,
) -> Samples:
    """Fill the masks of `prompt` [B, L] block by block (BD3-LM, arXiv 2503.09573).

    `sample(keys, block_prompt, (start, cache))` fills one block, which begins at `start`, by any masked sampler.
    `write(tokens, start, cache)` then adds the keys and values of the finished block with one more evaluation, which
    counts. Tokens of a prompt condition those of their own block and of later ones.

    Raises:
      ValueError: if the blocks do not divide the length.
    """
    length = prompt.shape[1]
    if length % block:
        raise ValueError(f"sample.length: {length} must be a multiple of process.block = {block}")

    def fill(cache: Any, start: Int[Array, ""]) -> tuple[Any, Samples]:
        block_prompt = jax.lax.dynamic_slice_in_dim(prompt, start, block, axis=1)
        samples = sample(fold(keys, start), block_prompt, (start, cache))
        return write(samples.tokens, start, cache), samples

    _, samples = jax.lax.scan(fill, cache, jnp.arange(0, length, block))
    whole = summed(jnp.swapaxes(samples.tokens, 0, 1).reshape(prompt.shape), samples[1:])
    return whole._replace(evaluations=whole.evaluations + length // block)
