"""Absorbing-state diffusion: each position keeps its token with probability alpha(t), else becomes the mask."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.randomness import fold
from diffusion.schedules import Schedule
from diffusion.types import Keys, Times, Tokens


@dataclass(frozen=True)
class Masking:
    """The process of MDLM: q(z_t | x) keeps x with probability alpha(t) (arXiv 2406.07524).

    Classes at `mask_id` and above (the mask, then padding) are never predicted: the SUBS parameterisation.
    """

    mask_id: int
    schedule: Schedule

    def prior(self, size: int, length: int) -> Tokens:
        """The state at t = 1: all masks."""
        return jnp.full((size, length), self.mask_id, jnp.int32)

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Tokens:
        """Draw z_t given the clean tokens, with one key and one time an example."""
        level = self.schedule.masked(time)
        noise = uniform(fold(keys, "corrupt"), clean.shape[1:])
        return jnp.where(noise < level[:, None], self.mask_id, clean)


def uniform(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Uniforms on [0, 1), from one key an example."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)
