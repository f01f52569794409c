"""The autoencoder of Stable Diffusion (arXiv 2112.10752) and SDXL (arXiv 2307.01952): images to latents and back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.attention import plain
from diffusion.nets.layers import Linear
from diffusion.nets.sd.layers import Conv, Downsample, GroupNorm, ResnetBlock, Upsample
from diffusion.partition import shard_batch
from diffusion.types import Params

EPSILON = 1e-6  # of all norms
WHOLE_TOKENS = 4096  # the attention matrix of longer sequences is computed in blocks of queries
QUERY_BLOCK = 1024
LOG_VARIANCE = (-30.0, 20.0)  # the bounds of diffusers


def attend_in_blocks(
    query: Float[Array, "B L N H"], key: Float[Array, "B M N H"], value: Float[Array, "B M N H"], block: int
) -> Float[Array, "B L N H"]:
    """Compute softmax(q k^T / sqrt(H)) v for `block` queries at a time, with memory for B N block M weights.

    Each softmax is over all keys, so that the result is exact. The backward pass computes the weights again.
    """
    batch, length, *heads = query.shape
    blocks = -(-length // block)
    query = jnp.pad(query, ((0, 0), (0, blocks * block - length), (0, 0), (0, 0)))
    query = jnp.moveaxis(query.reshape(batch, blocks, block, *heads), 1, 0)
    mixed = jax.lax.map(jax.checkpoint(lambda part: plain(part, key, value)), query)
    return jnp.moveaxis(mixed, 0, 1).reshape(batch, blocks * block, *heads)[:, :length]


class SpatialAttention(nn.Module):
    """x + out(attention(norm(x))) with one head, biases in all projections, and pixels as tokens."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        h = GroupNorm(self.groups, EPSILON, name="group_norm")(x).reshape(batch, height * width, channels)
        query, key, value = (
            Linear(channels, dtype=self.dtype, name=name)(h)[:, :, None] for name in ("to_q", "to_k", "to_v")
        )
        if height * width <= WHOLE_TOKENS:
            mixed = plain(query, key, value)
        else:
            mixed = attend_in_blocks(query, key, value, QUERY_BLOCK)
        return shard_batch(x + Linear(channels, dtype=self.dtype, name="to_out_0")(mixed[:, :, 0]).reshape(x.shape))


class Level(nn.Module):
    """Residual blocks of one level, and down- or up-sampling after them."""

    features: int
    layers: int
    groups: int
    down: bool
    up: bool
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        for layer in range(self.layers):
            x = ResnetBlock(self.features, self.groups, self.dtype, EPSILON, name=f"resnets_{layer}")(x)
        if self.down:
            x = Downsample(self.dtype, right_and_below=True, name="downsamplers_0")(x)
        if self.up:
            x = Upsample(self.dtype, name="upsamplers_0")(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        x = ResnetBlock(x.shape[-1], self.groups, self.dtype, EPSILON, name="resnets_0")(x)
        x = SpatialAttention(self.groups, self.dtype, name="attentions_0")(x)
        return ResnetBlock(x.shape[-1], self.groups, self.dtype, EPSILON, name="resnets_1")(x)


class Encoder(nn.Module):
    """Levels that halve the image, the middle, and a convolution to `outputs` channels."""

    channels: tuple[int, ...]
    layers: int
    outputs: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        last = len(self.channels) - 1
        x = shard_batch(Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x).astype(jnp.float32))
        for level, width in enumerate(self.channels):
            fields = (width, self.layers, self.groups, level < last, False, self.dtype)
            x = Level(*fields, name=f"down_blocks_{level}")(x)
        x = Middle(self.groups, self.dtype, name="mid_block")(x)
        x = nn.silu(GroupNorm(self.groups, EPSILON, name="conv_norm_out")(x))
        return Conv(self.outputs, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)


class Decoder(nn.Module):
    """The middle, levels that double the image, with one more residual block each, and a convolution to colors."""

    channels: tuple[int, ...]
    layers: int
    groups: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B H W 3"]:
        last = len(self.channels) - 1
        x = shard_batch(Conv(self.channels[-1], dtype=self.dtype, name="conv_in")(x).astype(jnp.float32))
        x = Middle(self.groups, self.dtype, name="mid_block")(x)
        for level, width in enumerate(reversed(self.channels)):
            fields = (width, self.layers + 1, self.groups, False, level < last, self.dtype)
            x = Level(*fields, name=f"up_blocks_{level}")(x)
        x = nn.silu(GroupNorm(self.groups, EPSILON, name="conv_norm_out")(x))
        return Conv(3, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)


class AutoencoderKL(nn.Module):
    """An autoencoder of images [B, H, W, 3] in [-1, 1] with latents smaller by 2^(levels - 1) in height and width.

    Level i has `channels[i]` channels, with `layers` residual blocks in the encoder and one more in the decoder.
    Diffusion runs on scaled latents, `scale` times those of the encoder, whose variance is about 1. Products run in
    `dtype`; in float16 the decoder of SDXL overflows.

    Raises:
      ValueError: with the name of the field, if sizes do not divide.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    latent_channels: int = 4
    groups: int = 32
    scale: float = 0.18215
    dtype: str = "float32"

    def setup(self):
        for width in self.channels:
            if width % self.groups:
                raise ValueError(f"vae.groups: {self.groups} do not divide {width} channels")
        moments = 2 * self.latent_channels
        self.encoder = Encoder(self.channels, self.layers, moments, self.groups, self.dtype)
        self.decoder = Decoder(self.channels, self.layers, self.groups, self.dtype)
        self.quant_conv = Conv(moments, 1, dtype=self.dtype)
        self.post_quant_conv = Conv(self.latent_channels, 1, dtype=self.dtype)

    def encode(self, images: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w C"]]:
        """Return mean and log variance of the posterior of latents, which are not scaled, in float32.

        Raises:
          ValueError: if the size of the images is not a multiple of that of a latent pixel.
        """
        factor = 2 ** (len(self.channels) - 1)
        if images.shape[1] % factor or images.shape[2] % factor:
            raise ValueError(f"image: {images.shape[1]} x {images.shape[2]} pixels; use multiples of {factor}")
        moments = self.quant_conv(self.encoder(images)).astype(jnp.float32)
        mean, log_variance = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(log_variance, *LOG_VARIANCE)

    def decode(self, latents: Float[Array, "B h w C"]) -> Float[Array, "B H W 3"]:
        """Return the images of scaled latents, in float32; values somewhat outside of [-1, 1] are not clipped.

        Raises:
          ValueError: if the latents have another number of channels.
        """
        if latents.shape[-1] != self.latent_channels:
            raise ValueError(f"vae.latent_channels: the latents have {latents.shape[-1]}, not {self.latent_channels}")
        return self.decoder(self.post_quant_conv(latents.astype(jnp.float32) / self.scale))

    def __call__(self, images: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Return the images that are decoded from the mean of the posterior."""
        return self.decode(self.encode(images)[0] * self.scale)


def decode_in_chunks(
    net: AutoencoderKL, params: Params, latents: Float[Array, "B h w C"], chunk: int
) -> Float[Array, "B H W 3"]:
    """Return `net.decode` of scaled latents, at most `chunk` images at a time, with the memory of one chunk.

    Raises:
      ValueError: if the chunk is empty.
    """
    if chunk < 1:
        raise ValueError(f"vae.chunk: {chunk} images at a time; use 1 or more")
    batch = len(latents)
    chunk = min(chunk, batch)
    chunks = -(-batch // chunk)
    latents = jnp.pad(latents, ((0, chunks * chunk - batch), (0, 0), (0, 0), (0, 0)))
    # A chunk takes every `chunks`-th image, so that it is spread over the devices like the batch.
    parts = jnp.swapaxes(latents.reshape(chunk, chunks, *latents.shape[1:]), 0, 1)
    images = jax.lax.map(lambda part: net.apply(params, part, method="decode"), parts)
    return jnp.swapaxes(images, 0, 1).reshape(chunks * chunk, *images.shape[2:])[:batch]


SD_VAE = AutoencoderKL()
SDXL_VAE = AutoencoderKL(scale=0.13025)

# A small network with every part of the two above, for comparisons with PyTorch.
TINY_VAE = AutoencoderKL(channels=(32, 64))
