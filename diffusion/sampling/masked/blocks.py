"""Semi-autoregressive sampling: texts longer than the network's window, one window after another."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion.rng import fold
from diffusion.sampling.masked.sampler import Samples
from diffusion.types import Keys, Tokens


def semi_autoregressive(
    sample: Callable[[Keys, Tokens], Samples], keys: Keys, prompt: Tokens, window: int, stride: int
) -> Samples:
    """Fill `prompt` [B, total] by windows of `window` positions that advance by `stride`.

    Each window conditions on the window - stride tokens that it shares with the one before (MDLM, section on
    semi-autoregressive generation, arXiv 2406.07524).

    Raises:
      ValueError: when windows of this stride do not end where the text ends.
    """
    total = prompt.shape[1]
    if not 0 < stride <= window or total < window or (total - window) % stride:
        raise ValueError(
            f"sample.stride: {stride} must divide sample.length - model length ({total} - {window}) and be at most "
            f"{window}"
        )

    def fill(text: Tokens, start) -> tuple[Tokens, tuple]:
        piece = jax.lax.dynamic_slice_in_dim(text, start, window, axis=1)
        samples = sample(fold(keys, start), piece)
        text = jax.lax.dynamic_update_slice_in_dim(text, samples.tokens, start, axis=1)
        return text, samples[1:]

    starts = jnp.arange(0, total - window + 1, stride)
    text, counts = jax.lax.scan(fill, prompt, starts)
    return Samples(text, *(jnp.sum(count, axis=0) for count in counts))
