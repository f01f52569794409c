"""A reward network of small images and prompts, which scores the agreement of an image with its prompt."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.layers import Linear
from diffusion.nets.sd.layers import Conv, GroupNorm
from diffusion.nets.text_conditioned_unet import PromptTable
from diffusion.partition import shard_batch

# With PyTorch's initialization, a third of this variance, training takes 150 more steps before the image has an effect.
Convolution = partial(Conv, initializer="lecun")


class ModulatedBlock(nn.Module):
    """x' + silu(norm(conv(x')) (1 + scale) + shift) with x' = silu(W [x, coordinates]) (FiLM, Perez et al., 2018, 3.2).

    Scale and shift are linear maps of the text. Coordinates are row and column in [-1, 1], with which the block can
    represent spatial relations such as "left of".
    """

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], text: Float[Array, "B T"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
        coordinates = jnp.broadcast_to(jnp.stack([rows, columns], axis=-1)[None], (batch, height, width, 2))
        x = nn.silu(Convolution(channels, 1, dtype=self.dtype, name="mix")(jnp.concatenate([x, coordinates], axis=-1)))
        h = GroupNorm(self.groups, 1e-5, name="norm")(Convolution(channels, dtype=self.dtype, name="conv")(x))
        modulation = Linear(2 * channels, name="modulation")(text)[:, None, None]
        scale, shift = jnp.split(modulation, 2, axis=-1)
        return shard_batch(x.astype(jnp.float32) + nn.silu(h * (1 + scale) + shift))


class RewardNet(nn.Module):
    """The unbounded reward of an image in [-1, 1] and a prompt of `length` ids 0 .. words - 1.

    Two convolutions halve the image, the prompt modulates `blocks` blocks of width `channels`, and a perceptron of
    width `hidden` reads the mean and the maximum over pixels and the prompt. Except for the maximum the reward is
    smooth in the image, so that its gradient can guide a sampler. Products run in `dtype`.
    """

    words: int
    length: int = 8
    stem: int = 32
    channels: int = 64
    blocks: int = 3
    hidden: int = 128
    word_width: int = 32
    groups: int = 8
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], prompt: Int[Array, "B S"]) -> Float[Array, " B"]:
        """Return rewards, in float32."""
        words = PromptTable(self.words, self.length, self.word_width, name="prompts")(prompt)
        text = nn.silu(Linear(self.hidden, name="text")(words.reshape(len(x), -1)))
        x = nn.silu(Convolution(self.stem, 5, dtype=self.dtype, name="conv_in")(shard_batch(x)))
        x = Convolution(self.channels, stride=2, dtype=self.dtype, name="halve")(x)
        for block in range(self.blocks):
            x = ModulatedBlock(self.groups, self.dtype, name=f"blocks_{block}")(x, text)
        x = nn.silu(Convolution(self.hidden, 1, dtype=self.dtype, name="conv_out")(x)).astype(jnp.float32)
        features = jnp.concatenate([x.mean((1, 2)), x.max((1, 2)), text], axis=-1)
        features = nn.silu(Linear(self.hidden, dtype=self.dtype, name="hidden_layer")(features))
        return Linear(1, name="output_layer")(features.astype(jnp.float32))[:, 0]
