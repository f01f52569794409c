"""Prompts of a few known words: a learned vector a word and a place, in the place of a text encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class PromptTable(nn.Module):
    """Context word[id_s] + position[s] of prompts of `length` ids 0 .. words - 1.

    One more id, `nothing`, stands in all places of a prompt that is not told (classifier-free guidance, Ho and
    Salimans, 2022). Both tables start at N(0, 1/2), so that a context starts with unit variance, as the final norm of
    a text encoder leaves it.
    """

    words: int
    length: int = 8
    width: int = 64

    @property
    def nothing(self) -> int:
        """The id of a word that is not told."""
        return self.words

    @nn.compact
    def __call__(self, prompt: Int[Array, "B S"]) -> Float[Array, "B S W"]:
        """Vectors in float32; raises ValueError for prompts of another length."""
        if prompt.shape[1:] != (self.length,):
            raise ValueError(f"prompts.length: is {self.length}, but the prompts are {prompt.shape}")
        start = nn.initializers.normal(0.5**0.5)
        words = self.param("word", start, (self.words + 1, self.width), jnp.float32)
        positions = self.param("position", start, (self.length, self.width), jnp.float32)
        return jnp.take(words, prompt, axis=0) + positions[None]
