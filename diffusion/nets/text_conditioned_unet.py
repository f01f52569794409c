"""A U-Net of images with learned embeddings of prompts, in place of a text encoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.sd.unet import TextConditioning, UNet


class PromptTable(nn.Module):
    """Learned embeddings of prompts, word[id_s] + position[s], for `length` ids 0 .. words - 1.

    The null conditioning of classifier-free guidance (arXiv 2207.12598) is a prompt with the id `words` at all
    positions. Both tables start at N(0, 1/2), so that the context has unit variance at the start, like the output of
    the final norm of a text encoder.
    """

    words: int
    length: int = 8
    width: int = 64

    @nn.compact
    def __call__(self, prompt: Int[Array, "B S"]) -> Float[Array, "B S W"]:
        """Return the context, in float32.

        Raises:
          ValueError: if the length of the prompts is not `length`.
        """
        if prompt.shape[1:] != (self.length,):
            raise ValueError(f"prompts.length: is {self.length}, but the prompts are {prompt.shape}")
        start = nn.initializers.normal(0.5**0.5)
        words = self.param("word", start, (self.words + 1, self.width), jnp.float32)
        positions = self.param("position", start, (self.length, self.width), jnp.float32)
        return jnp.take(words, prompt, axis=0) + positions[None]


class TextConditionedUNet(nn.Module):
    """A U-Net conditioned on prompts through a `PromptTable`; its parameters are `unet` and `prompts`.

    Prompts have `length` ids 0 .. words - 1; the null conditioning has the id `null_id` at all positions.
    """

    unet: UNet
    words: int
    length: int = 8

    @property
    def null_id(self) -> int:
        """The id of the null conditioning."""
        return self.words

    def setup(self):
        self.prompts = PromptTable(self.words, self.length, self.unet.context_width)

    def embed(self, prompt: Int[Array, "B S"]) -> Float[Array, "B S E"]:
        """Return the context of prompts, for example as the start of methods that optimize it."""
        return self.prompts(prompt)

    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        cond: Int[Array, "B S"] | TextConditioning,
    ) -> Float[Array, "B H W C"]:
        """Return the prediction of the U-Net, conditioned on prompts or on their embeddings."""
        context = cond.context if isinstance(cond, TextConditioning) else self.embed(cond)
        return self.unet(x, time, context)
