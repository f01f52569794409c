"""Sampling piece by piece: windows of a text that is longer than the network's, and blocks after cached ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from diffusion.rng import fold
from diffusion.sampling.masked.sampler import Samples
from diffusion.types import Keys, Tokens


def check_stride(total: int, window: int, stride: int) -> None:
    """Raise ValueError if windows that advance by `stride` do not end with the text."""
    if not 0 < stride <= window or total < window or (total - window) % stride:
        raise ValueError(
            f"sample.stride: {stride} must divide sample.length - model length ({total} - {window}) and be at most "
            f"{window}"
        )


def semi_autoregressive(
    sample: Callable[[Keys, Tokens], Samples], keys: Keys, prompt: Tokens, window: int, stride: int
) -> Samples:
    """Fill `prompt` [B, total] with windows of `window` positions that advance by `stride` (MDLM, arXiv 2406.07524).

    Each window is conditioned on the window - stride tokens that it shares with the previous one.

    Raises:
      ValueError: if the stride does not lie in 1 .. window, or does not divide total - window.
    """
    total = prompt.shape[1]
    check_stride(total, window, stride)

    def fill(text: Tokens, start) -> tuple[Tokens, tuple]:
        window_prompt = jax.lax.dynamic_slice_in_dim(text, start, window, axis=1)
        samples = sample(fold(keys, start), window_prompt)
        text = jax.lax.dynamic_update_slice_in_dim(text, samples.tokens, start, axis=1)
        return text, samples[1:]

    starts = jnp.arange(0, total - window + 1, stride)
    text, counts = jax.lax.scan(fill, prompt, starts)
    return summed(text, counts)


def summed(text: Tokens, counts: tuple) -> Samples:
    """Return the samples of all pieces, with the sums of their counts."""
    return Samples(text, *jax.tree.map(lambda count: jnp.sum(count, axis=0), counts))


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
