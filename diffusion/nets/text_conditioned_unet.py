"""A U-Net of pictures that reads prompts by itself."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.prompts import PromptTable
from diffusion.nets.sd.unet import UNet


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
