"""A U-Net of pictures that reads prompts by itself."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.sd.unet import UNet


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


class CaptionedUNet(nn.Module):
    """The U-Net told the vectors of a prompt's words; parameters are `unet` and `prompts`.

    Prompts have `length` ids 0 .. words - 1; an example whose ids are all `nothing` is told nothing.
    """

    unet: UNet
    words: int
    length: int = 8

    @property
    def nothing(self) -> int:
        """The id that stands in all places of a prompt that is not told."""
        return self.words

    def setup(self):
        self.prompts = PromptTable(self.words, self.length, self.unet.context_width)

    def embed(self, prompt: Int[Array, "B S"]) -> Float[Array, "B S E"]:
        """The context of prompts: what methods that search for a better one start from."""
        return self.prompts(prompt)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        told: Int[Array, "B S"] | Float[Array, "B S E"],
    ) -> Float[Array, "B H W C"]:
        """The U-Net's prediction, told prompts (whole numbers) or a context."""
        context = self.embed(told) if jnp.issubdtype(told.dtype, jnp.integer) else told
        return self.unet(x, time, context)
