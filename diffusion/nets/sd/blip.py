"""ImageReward (arXiv 2304.05977), a reward of an image for a prompt, on BLIP (arXiv 2201.12086)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.nets.layers import Linear
from diffusion.nets.sd.blip_text import TextEncoder
from diffusion.nets.sd.blip_vision import VisionTransformer

# Mean and standard deviation of the score over the pairs that the published network was trained on.
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072


class Blip(nn.Module):
    """The states of a text that reads an image."""

    vision: tuple[int, int, int, int, int]
    text: tuple[int, int, int, int, int]
    dtype: str

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "B H W 3"], ids: Int[Array, "B L"], mask: Int[Array, "B L"] | Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        image = VisionTransformer(*self.vision, self.dtype, name="visual_encoder")(pixels)
        return TextEncoder(*self.text, self.dtype, name="text_encoder")(ids, mask, image)


class Head(nn.Module):
    """Five linear maps without activations, in float32; dropout layers of the training have the other numbers."""

    widths: tuple[int, int, int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, " B"]:
        for number, width in zip((0, 2, 4, 6, 7), (*self.widths, 1), strict=True):
            x = Linear(width, name=f"layers_{number}")(x)
        return x[:, 0]


class ImageReward(nn.Module):
    """(mlp(h) - mean) / deviation, with h the state of the first token ([CLS]) of the text that reads the image.

    `vision` is image size, patch size, width, layers, and heads; `text` is vocabulary, context, width, layers, and
    heads; `head` is the widths between the linear maps of the score.
    """

    vision: tuple[int, int, int, int, int] = (224, 16, 1024, 24, 16)
    text: tuple[int, int, int, int, int] = (30524, 512, 768, 12, 12)
    head: tuple[int, int, int, int] = (1024, 128, 64, 16)
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, pixels: Float[Array, "B H W 3"], ids: Int[Array, "B L"], mask: Int[Array, "B L"] | Bool[Array, "B L"]
    ) -> Float[Array, " B"]:
        """Return the reward of images, normalized by CLIP's mean and deviation of colors, for texts of BERT's tokens.

        `mask` is 0 at padding. The published rewards have 35 tokens per text, the first [CLS].

        Raises:
          ValueError: if the images have another size than the network reads, or the texts are too long.
        """
        states = Blip(self.vision, self.text, self.dtype, name="blip")(pixels, ids, mask)
        return (Head(self.head, name="mlp")(states[:, 0].astype(jnp.float32)) - MEAN) / DEVIATION


IMAGE_REWARD = ImageReward()
TINY_IMAGE_REWARD = ImageReward((32, 8, 24, 2, 3), (60, 40, 16, 3, 2), (20, 12, 8, 4))
