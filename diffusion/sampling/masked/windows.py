"""Windows of a text that is longer than the network's, one after the other."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

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
