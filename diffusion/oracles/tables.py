"""Wrong denoisers, arbitrary functions of the noisy sequence, under which a bound has to hold as well."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from diffusion.types import Denoise, Logits, Number, Symbols, Times


def random_denoiser(
    key: Key[Array, ""], vocabulary: int, scale: Number = 0.7, *, causal: bool = False, subtokens: int = 1
) -> Denoise:
    """A denoiser with random normal logits, seeded by a hash of its inputs, and a smooth dependence on time.

    The logits of different noisy sequences are independent, as those of a network of unlimited capacity could be; they
    are not the conditionals of any joint distribution. A causal denoiser reads the inputs up to each position, and
    ignores time. A token has `subtokens` positions in the noisy sequence.
    """

    def table(number: UInt32[Array, ""], rows: tuple[int, ...]) -> Float[Array, "..."]:
        return jax.random.normal(jax.random.fold_in(key, number), (*rows, vocabulary + 1))

    def denoise(noisy: Symbols, time: Times) -> Logits:
        length = noisy.shape[1]
        # A polynomial hash, whose coefficients are the powers of an odd number modulo 2^32.
        multipliers = jnp.cumprod(jnp.full(length, 2654435761, jnp.uint32))
        prefixes = jnp.cumsum((noisy.astype(jnp.uint32) + 1) * multipliers[None], axis=1)
        if causal:
            return scale * jax.vmap(jax.vmap(lambda number: table(number, ())))(prefixes)
        logits = jax.vmap(lambda number: table(number, (2, length // subtokens)))(prefixes[:, -1])
        return scale * (logits[:, 0] + jnp.sin(2 * jnp.pi * time)[:, None, None] * logits[:, 1])

    return denoise
