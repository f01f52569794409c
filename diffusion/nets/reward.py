"""A reward for small pictures and prompts: how well a picture shows what its prompt asks for."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.layers import Linear, shard_batch
from diffusion.nets.sd.layers import Conv, GroupNorm
from diffusion.nets.text_conditioned_unet import PromptTable

# PyTorch's start, a third of this variance, leaves the pictures unread for 150 more steps of training.
Convolution = partial(Conv, initializer="lecun")


class Modulated(nn.Module):
    """x' + silu(norm(conv(x')) (1 + scale) + shift) for x' = silu(W [x, coordinates]); scale and shift are the text's.

    FiLM (Perez et al., 2018, section 3.2); coordinates are row and column in [-1, 1], so that "left of" can be told.
    """

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], text: Float[Array, "B T"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, height), jnp.linspace(-1, 1, width), indexing="ij")
        places = jnp.broadcast_to(jnp.stack([rows, columns], axis=-1)[None], (batch, height, width, 2))
        x = nn.silu(Convolution(channels, 1, dtype=self.dtype, name="mix")(jnp.concatenate([x, places], axis=-1)))
        h = GroupNorm(self.groups, 1e-5, name="norm")(Convolution(channels, dtype=self.dtype, name="conv")(x))
        modulation = Linear(2 * channels, name="modulation")(text)[:, None, None]
        scale, shift = jnp.split(modulation, 2, axis=-1)
        return shard_batch(x.astype(jnp.float32) + nn.silu(h * (1 + scale) + shift))


class RewardNet(nn.Module):
    """One number for a picture in [-1, 1] and a prompt of `length` ids 0 .. words - 1, without bounds.

    Two convolutions halve the picture, `blocks` blocks of `channels` are modulated by the prompt, and a perceptron of
    `hidden` numbers reads mean and maximum over pixels and the prompt again. Smooth in the picture but for the maximum,
    so that it can guide; products run in `dtype`.
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
        """Rewards in float32."""
        words = PromptTable(self.words, self.length, self.word_width, name="prompts")(prompt)
        text = nn.silu(Linear(self.hidden, name="text")(words.reshape(len(x), -1)))
        x = nn.silu(Convolution(self.stem, 5, dtype=self.dtype, name="conv_in")(shard_batch(x)))
        x = Convolution(self.channels, stride=2, dtype=self.dtype, name="halve")(x)
        for block in range(self.blocks):
            x = Modulated(self.groups, self.dtype, name=f"blocks_{block}")(x, text)
        x = nn.silu(Convolution(self.hidden, 1, dtype=self.dtype, name="conv_out")(x)).astype(jnp.float32)
        seen = jnp.concatenate([x.mean((1, 2)), x.max((1, 2)), text], axis=-1)
        seen = nn.silu(Linear(self.hidden, dtype=self.dtype, name="hidden_layer")(seen))
        return Linear(1, name="output_layer")(seen.astype(jnp.float32))[:, 0]
