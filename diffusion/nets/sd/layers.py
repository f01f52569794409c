"""Blocks of the U-Net of Stable Diffusion: residual block, spatial transformer, down- and up-sampling.

Modules and parameters have the names of the `diffusers` checkpoints, with "_" for a dot before a number and "/" for
other dots: `down_blocks.0.resnets.1.conv1.weight` is down_blocks_0/resnets_1/conv1/kernel. Several transformer blocks
run in a loop under the name transformer_blocks, with parameters stacked along a leading axis. Parameters are float32
with the initialization of PyTorch, U(-1/sqrt(fan in), 1/sqrt(fan in)) for kernels and biases, 1 and 0 for norms.
Products run in `dtype`; norms, softmax, the inputs of norms and the residual stream are float32.
"""

import math
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.attention import attend, plain
from diffusion.nets.layers import LayerNorm, Linear, rematerialized, stacked, uniform_fan_in
from diffusion.partition import shard_batch

# Attention kernels are faster for long sequences only; others, and wide heads (160 in SD 1.5), use plain products.
KERNEL_TOKENS = 1024
KERNEL_HEAD_CHANNELS = 128


CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def _convolve(x: Array, kernel: Array, stride: int) -> Array:
    # With a stride, "SAME" would pad images of even size on the right and below only, unlike PyTorch.
    padding = [(len(kernel) // 2, len(kernel) // 2)] * 2
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=CHANNELS_LAST)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Float[Array, "B H W I"], kernel: Float[Array, "S S I O"], stride: int = 1) -> Float[Array, "B h w O"]:
    """Convolve with (S - 1) / 2 zeros on every border, for a kernel of odd size S.

    The gradient with respect to x is that of JAX, but with the kernel transposed in memory. With a transposition by
    dimension numbers XLA runs it about 20 times slower in a loop on CPU (`experiments.benchmarks.convolution`).
    """
    return _convolve(x, kernel, stride)


def convolve_forward(x, kernel, stride):
    return convolve(x, kernel, stride), (x, kernel)


def convolve_backward(stride, saved, gradient):
    x, kernel = saved
    border = len(kernel) // 2
    # With a stride the convolution may skip the last rows and columns.
    padding = [(border, border + (size - 1) % stride) for size in x.shape[1:3]]
    transposed = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    x_gradient = jax.lax.conv_general_dilated(
        gradient, transposed, (1, 1), padding, lhs_dilation=(stride, stride), dimension_numbers=CHANNELS_LAST
    )
    _, kernel_vjp = jax.vjp(lambda kernel: _convolve(x, kernel, stride), kernel)
    return x_gradient, *kernel_vjp(gradient)


convolve.defvjp(convolve_forward, convolve_backward)


class Conv(nn.Module):
    """A convolution with (size - 1) / 2 zeros on every border; the kernel is [size, size, I, O].

    `initializer` is "torch", or "lecun" with kernels N(0, 1 / fan in), which preserve the variance, and zero biases.
    """

    features: int
    size: int = 3
    stride: int = 1
    dtype: str = "float32"
    initializer: Literal["torch", "lecun"] = "torch"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        inputs = x.shape[-1]
        fan_in = self.size**2 * inputs
        kernel_start = bias_start = uniform_fan_in(fan_in)
        if self.initializer == "lecun":
            kernel_start, bias_start = nn.initializers.normal(fan_in**-0.5), nn.initializers.zeros
        kernel = self.param("kernel", kernel_start, (self.size, self.size, inputs, self.features), jnp.float32)
        bias = self.param("bias", bias_start, (self.features,), jnp.float32).astype(self.dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.size == 1:
            y = (x.reshape(-1, inputs) @ kernel[0, 0]).reshape(*x.shape[:-1], self.features)
        else:
            y: Any = convolve(x, kernel, self.stride)
        return y + bias[None, None, None]


class GroupNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over all pixels and the channels of a group, in float32.

    Means over pixels first and over channels second are three times as fast on CPU as means over a 5-D array.
    """

    groups: int
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        batch, _, _, channels = x.shape
        x = x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        def of_groups(x):
            grouped = x.mean((1, 2)).reshape(batch, self.groups, -1)
            return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(batch, 1, 1, channels)

        centered = x - of_groups(x)
        factor = jax.lax.rsqrt(of_groups(jnp.square(centered)) + self.epsilon) * scale[None, None, None]
        return centered * factor + bias[None, None, None]


class ResnetBlock(nn.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(time)))), in an autoencoder without the time.

    If the number of channels changes, the first x passes a 1 x 1 convolution.
    """

    features: int
    groups: int
    dtype: str
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], time: Float[Array, "B T"] | None = None) -> Float[Array, "B H W O"]:
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm1")(x))
        h = Conv(self.features, dtype=self.dtype, name="conv1")(h)
        if time is not None:
            h = h + Linear(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))[:, None, None]
        h = nn.silu(GroupNorm(self.groups, self.epsilon, name="norm2")(h))
        h = Conv(self.features, dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="conv_shortcut")(x)
        return shard_batch(x.astype(jnp.float32) + h)


class Attention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(d)) v, of x to `context` or to x; only the output has a bias."""

    heads: int
    dtype: str
    backend: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], context: Float[Array, "B S E"] | None = None) -> Float[Array, "B L D"]:
        batch, length, width = x.shape
        memory = x if context is None else context

        def heads(source, name):
            y = Linear(width, bias=False, dtype=self.dtype, name=name)(source)
            return y.reshape(batch, -1, self.heads, width // self.heads)

        query, key, value = heads(x, "to_q"), heads(memory, "to_k"), heads(memory, "to_v")
        if context is None and length >= KERNEL_TOKENS and width // self.heads <= KERNEL_HEAD_CHANNELS:
            mixed = attend(query, key, value, backend=self.backend)
        else:
            mixed = plain(query, key, value)
        return Linear(width, dtype=self.dtype, name="to_out_0")(mixed.reshape(batch, length, width))


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x Phi(x) with the exact normal distribution function; erf is several times as fast on CPU as erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


class GatedLinear(nn.Module):
    """value * gelu(gate) with one projection to (value, gate) (GEGLU, Shazeer, arXiv 2002.05202)."""

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L F"]:
        value, gate = jnp.split(Linear(2 * self.features, dtype=self.dtype, name="proj")(x), 2, axis=-1)
        return value * gelu(gate)


class FeedForward(nn.Module):
    """W2 GEGLU(x), with four times the width in the hidden layer."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        h = GatedLinear(4 * x.shape[-1], self.dtype, name="net_0")(x)
        return Linear(x.shape[-1], dtype=self.dtype, name="net_2")(h)


class TransformerBlock(nn.Module):
    """x += attention(norm(x)); x += attention(norm(x), context); x += feed_forward(norm(x))."""

    heads: int
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], context: Float[Array, "B S E"]) -> tuple[Float[Array, "B L D"], None]:
        h = LayerNorm(bias=True, name="norm1")(x)
        x = x + Attention(self.heads, self.dtype, self.attention, name="attn1")(h)
        h = LayerNorm(bias=True, name="norm2")(x)
        x = x + Attention(self.heads, self.dtype, self.attention, name="attn2")(h, context)
        h = LayerNorm(bias=True, name="norm3")(x)
        return shard_batch(x + FeedForward(self.dtype, name="ff")(h)), None


class SpatialTransformer(nn.Module):
    """x + proj_out(blocks(proj_in(norm(x)))), with pixels as tokens in row-major order.

    Projections are 1 x 1 convolutions in Stable Diffusion 1.5 and linear maps in SDXL; only the shapes of their kernels
    differ. Blocks are computed again in the backward pass by the policy `remat`.
    """

    heads: int
    layers: int
    groups: int
    linear_projection: bool
    dtype: str
    attention: str
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"], context: Float[Array, "B S E"]) -> Float[Array, "B H W D"]:
        batch, height, width, channels = x.shape

        def project(x, name):
            if self.linear_projection:
                return Linear(channels, dtype=self.dtype, name=name)(x)
            return Conv(channels, 1, dtype=self.dtype, name=name)(x)

        h = project(GroupNorm(self.groups, 1e-6, name="norm")(x), "proj_in")
        h = h.reshape(batch, height * width, channels).astype(jnp.float32)
        if self.layers == 1:
            block, name = rematerialized(TransformerBlock, self.remat), "transformer_blocks_0"
        else:
            block = stacked(TransformerBlock, self.layers, in_axes=nn.broadcast, remat=self.remat)
            name = "transformer_blocks"
        h, _ = block(self.heads, self.dtype, self.attention, name=name)(h, context)
        return shard_batch(x + project(h.reshape(x.shape), "proj_out"))


class Downsample(nn.Module):
    """A 3 x 3 convolution with stride 2 and one zero on every border, or only on the right and below."""

    dtype: str
    right_and_below: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
        conv = Conv(x.shape[-1], stride=2, dtype=self.dtype, name="conv")
        if self.right_and_below:
            # One more zero on the left and above moves all windows by one pixel, and adds a first one that is left out.
            return conv(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))))[:, 1:, 1:].astype(jnp.float32)
        return conv(x).astype(jnp.float32)


class Upsample(nn.Module):
    """Nearest-neighbor up-sampling by 2, and a 3 x 3 convolution."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        shape = (batch, height, 2, width, 2, channels)
        x = jnp.broadcast_to(x[:, :, None, :, None], shape).reshape(batch, 2 * height, 2 * width, channels)
        return Conv(channels, dtype=self.dtype, name="conv")(x).astype(jnp.float32)
