"""The transformer of both towers of CLIP, with the names of parameters of its public checkpoints."""

from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.attention import attend
from diffusion.nets.attention_masks import AttentionMask
from diffusion.nets.layers import LayerNorm, Linear, stacked
from diffusion.nets.sd.layers import gelu
from diffusion.partition import shard_batch

Activation = Literal["quick_gelu", "gelu"]
Hidden = Float[Array, "B S D"]


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x sigmoid(1.702 x), the approximation of GELU in OpenAI's weights."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


class SelfAttention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(d)) v, with biases in all four maps."""

    heads: int
    mask: AttentionMask
    dtype: str
    backend: str

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        batch, length, width = x.shape
        linear = partial(Linear, width, dtype=self.dtype)
        query, key, value = (
            linear(name=name)(x).reshape(batch, length, self.heads, width // self.heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = attend(query, key, value, self.mask, backend=self.backend)
        return linear(name="out_proj")(mixed.reshape(batch, length, width))


class FeedForward(nn.Module):
    """W2 activation(W1 x)."""

    features: int
    activation: Activation
    dtype: str

    @nn.compact
    def __call__(self, x: Hidden) -> Hidden:
        h = ACTIVATIONS[self.activation](Linear(self.features, dtype=self.dtype, name="fc1")(x))
        return Linear(x.shape[-1], dtype=self.dtype, name="fc2")(h)


class EncoderLayer(nn.Module):
    """x += attention(norm(x)); x += feed_forward(norm(x)); the second of the pair that it returns is its input."""

    heads: int
    feed_forward: int
    activation: Activation
    mask: AttentionMask
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, states: tuple[Hidden, Hidden], unused: None) -> tuple[tuple[Hidden, Hidden], None]:
        start, _ = states
        h = LayerNorm(bias=True, name="layer_norm1")(start)
        x = start + SelfAttention(self.heads, self.mask, self.dtype, self.attention, name="self_attn")(h)
        h = LayerNorm(bias=True, name="layer_norm2")(x)
        x = x + FeedForward(self.feed_forward, self.activation, self.dtype, name="mlp")(h)
        return (shard_batch(x), start), None


class Encoder(nn.Module):
    """Equal layers in a loop; returns the outputs of the last layer and of the one before it, in float32."""

    layers: int
    heads: int
    feed_forward: int
    activation: Activation
    mask: AttentionMask
    dtype: str
    attention: str

    @nn.compact
    def __call__(self, x: Hidden) -> tuple[Hidden, Hidden]:
        if x.shape[-1] % self.heads:
            raise ValueError(f"clip.heads: {self.heads} do not divide the width {x.shape[-1]}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"clip.activation: unknown '{self.activation}'; use one of {', '.join(ACTIVATIONS)}")
        fields = (self.heads, self.feed_forward, self.activation, self.mask, self.dtype, self.attention)
        x = shard_batch(x.astype(jnp.float32))
        (last, penultimate), _ = stacked(EncoderLayer, self.layers, in_axes=nn.broadcast)(*fields, name="layers")(
            (x, x), None
        )
        return last, penultimate
