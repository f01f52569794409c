"""Patches of images as tokens, for the vision transformers of CLIP and BLIP."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


class PatchProjection(nn.Module):
    """A linear map of square patches without overlap, in row-major order; the kernel is that of a convolution."""

    features: int
    size: int
    bias: bool
    dtype: str

    @nn.compact
    def __call__(self, pixels: Float[Array, "B H W C"]) -> Float[Array, "B L D"]:
        batch, height, width, channels = pixels.shape
        size, inputs = self.size, self.size**2 * channels
        normal = nn.initializers.normal(0.02)
        kernel = self.param("kernel", normal, (size, size, channels, self.features), jnp.float32)
        patches = pixels.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
        y = patches.reshape(-1, inputs).astype(self.dtype) @ kernel.reshape(inputs, -1).astype(self.dtype)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias[None].astype(self.dtype)
        return y.reshape(batch, -1, self.features)
