"""The vision transformer of BLIP (arXiv 2201.12086), whose tokens its text encoder reads.

Modules and parameters have the names of the public checkpoints (see `diffusion.convert.template`); "blocks" is a loop
over equal blocks. Products run in `dtype`; norms, softmax, and the residual stream are float32.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.attention import plain
from diffusion.nets.layers import LayerNorm, Linear, stacked
from diffusion.nets.sd.layers import gelu
from diffusion.nets.sd.patches import PatchProjection
from diffusion.partition import shard_batch

Norm = partial(LayerNorm, bias=True, epsilon=1e-6)
NORMAL = nn.initializers.normal(0.02)


class PatchEmbedding(nn.Module):
    """The tokens of all patches."""

    features: int
    size: int
    dtype: str

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W C"]) -> Float[Array, "B L D"]:
        return PatchProjection(self.features, self.size, True, self.dtype, name="proj")(pixels)


class VisionAttention(nn.Module):
    """Multi-head self-attention with one projection to query, key and value."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        batch, length, width = x.shape
        qkv = Linear(3 * width, initializer=0.02, dtype=self.dtype, name="qkv")(x)
        query, key, value = (part.reshape(batch, length, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        mixed = plain(query, key, value).reshape(x.shape)
        return Linear(width, initializer=0.02, dtype=self.dtype, name="proj")(mixed)


class VisionMLP(nn.Module):
    """fc2(gelu(fc1(x))) with four times the width in the hidden layer."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        h = gelu(Linear(4 * x.shape[-1], initializer=0.02, dtype=self.dtype, name="fc1")(x))
        return Linear(x.shape[-1], initializer=0.02, dtype=self.dtype, name="fc2")(h)


class VisionBlock(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], unused: None) -> tuple[Float[Array, "B L D"], None]:
        x = x + VisionAttention(self.heads, self.dtype, name="attn")(Norm(name="norm1")(x))
        return shard_batch(x + VisionMLP(self.dtype, name="mlp")(Norm(name="norm2")(x))), None


class VisionTransformer(nn.Module):
    """ViT (arXiv 2010.11929) with a class token, learned positions, and a final norm; all tokens are returned."""

    image: int
    patch: int
    width: int
    layers: int
    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B L D"]:
        """Return the tokens of normalized images.

        Raises:
          ValueError: if the images have another size.
        """
        if pixels.shape[1:3] != (self.image, self.image):
            raise ValueError(
                f"pixels: images of {pixels.shape[1]} x {pixels.shape[2]}, where the network reads {self.image} x "
                f"{self.image}; resize them first"
            )
        patches = PatchEmbedding(self.width, self.patch, self.dtype, name="patch_embed")(pixels)
        start = self.param("cls_token", NORMAL, (1, 1, self.width), jnp.float32).astype(jnp.float32)
        positions = self.param("pos_embed", NORMAL, (1, 1 + patches.shape[1], self.width), jnp.float32)
        start = jnp.broadcast_to(start, (len(pixels), 1, self.width))
        x = jnp.concatenate([start, patches.astype(jnp.float32)], axis=1) + positions.astype(jnp.float32)
        blocks = stacked(VisionBlock, self.layers, in_axes=nn.broadcast)(self.heads, self.dtype, name="blocks")
        return Norm(name="norm")(blocks(shard_batch(x), None)[0])
