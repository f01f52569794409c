"""Layers of several networks: linear maps, layer norm, rotary positions, time embedding, and per-example dropout."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

REMAT_POLICIES = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def uniform_fan_in(fan_in: int):
    """Return the initializer U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for linear weights and biases."""
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


class Linear(nn.Module):
    """An affine map y = x W + b over the last axis, with W [in, out] in float32, computed in `dtype`.

    `initializer` is "torch" (uniform fan-in for weight and bias), "zeros", or a standard deviation (normal weight, zero
    bias).
    """

    features: int
    bias: bool = True
    initializer: str | float = "torch"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
        fan_in = x.shape[-1]
        if self.initializer == "torch":
            weight_init = bias_init = uniform_fan_in(fan_in)
        elif self.initializer == "zeros":
            weight_init = bias_init = nn.initializers.zeros
        else:
            weight_init, bias_init = nn.initializers.normal(self.initializer), nn.initializers.zeros
        kernel = self.param("kernel", weight_init, (fan_in, self.features), jnp.float32)
        # Batched small products run at a third of the speed of one large 2-D product on CPU.
        y = x.astype(self.dtype).reshape(-1, fan_in) @ kernel.astype(self.dtype)
        if self.bias:
            bias = self.param("bias", bias_init, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)[None]
        return y.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale (+ bias) over the last axis, in float32."""

    bias: bool = False
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        x = x.astype(jnp.float32)
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
        centered = x - x.mean(-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + self.epsilon)
        y = centered * inverse * scale.reshape(shape)
        if self.bias:
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
            y = y + bias.reshape(shape)
        return y


def rematerialized(block: type[nn.Module], remat: str, *, prevent_cse: bool = True) -> Any:
    """Return a module class whose activations are computed again in the backward pass by the policy `remat`.

    Raises:
      ValueError: if the policy is not known.
    """
    if remat not in ("none", *REMAT_POLICIES):
        raise ValueError(f"net.remat: unknown policy '{remat}'; use one of none, dots, full")
    return block if remat == "none" else nn.remat(block, policy=REMAT_POLICIES[remat], prevent_cse=prevent_cse)


def stacked(block: type[nn.Module], blocks: int, *, in_axes: Any = 0, unroll: int = 1, remat: str = "none") -> Any:
    """Return a module that runs `blocks` equal blocks in a loop, with parameters stacked along a leading axis.

    The first argument is the carry. `in_axes` has one axis for each other argument (see `flax.linen.scan`). Blocks are
    computed again in the backward pass by the policy `remat`.

    Raises:
      ValueError: if the policy is not known.
    """
    block = rematerialized(block, remat, prevent_cse=unroll > 1)
    return nn.scan(
        block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=in_axes, length=blocks, unroll=unroll
    )


def modulate(
    x: Float[Array, "B L D"], shift: Float[Array, "B 1 D"], scale: Float[Array, "B 1 D"]
) -> Float[Array, "B L D"]:
    """Return x (1 + scale) + shift, the modulation of adaptive layer norm (DiT, arXiv 2212.09748, section 3.2)."""
    return x * (1.0 + scale) + shift


def sinusoids(value: Float[Array, " B"], width: int = 256, period: float = 10000.0) -> Float[Array, "B W"]:
    """Return the cosines and then the sines of value * period^(-i / (width/2)), i = 0 .. width/2 - 1."""
    half = width // 2
    frequencies = jnp.exp(-math.log(period) / half * jnp.arange(half, dtype=jnp.float32))
    angles = value.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedder(nn.Module):
    """silu(W2 silu(W1 sinusoids(sigma))), the conditioning vector of all blocks, in float32."""

    width: int

    @nn.compact
    def __call__(self, sigma: Float[Array, " B"]) -> Float[Array, "B C"]:
        hidden = nn.silu(Linear(self.width, name="first")(sinusoids(sigma)))
        return nn.silu(Linear(self.width, name="second")(hidden))


def rotary_table(positions: Int[Array, " L"], head_dim: int, theta: float = 10000.0) -> Float[Array, "2 L H"]:
    """Return cosines and sines of position * theta^(-2i / head_dim), i = 0 .. head_dim/2 - 1 (RoFormer, 3.2)."""
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angles = positions.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def rotate(x: Float[Array, "B L N H"], table: Float[Array, "2 L H/2"]) -> Float[Array, "B L N H"]:
    """Rotate the pairs (x_i, x_{i + H/2}) by the angles of the table (the half-split form)."""
    cosine, sine = table[0][None, :, None], table[1][None, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x.dtype)


def dropout_seeds(keys: Key[Array, " B"], layers: int, sites: int = 2) -> UInt32[Array, "N B S 2"]:
    """Return two random 32-bit words per layer, example and dropout site; those of example i depend on keys[i] only."""

    def of_layer(layer):
        return jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, layer), (sites, 2), jnp.uint32))(keys)

    return jax.vmap(of_layer)(jnp.arange(layers))


def _mix(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def dropout(x: Float[Array, "B L D"], seeds: UInt32[Array, "B 2"], rate: float) -> Float[Array, "B L D"]:
    """Set each value to 0 with probability `rate`, and divide the others by 1 - rate.

    The random bits are an integer hash of position and seed, many times cheaper than threefry, whose 31 ns per value
    are a third of the training step of a small model. The seeds come from threefry.
    """
    _, length, width = x.shape
    counter = jnp.arange(length * width, dtype=jnp.uint32).reshape(1, length, width)
    first, second = seeds[:, 0, None, None], seeds[:, 1, None, None]
    bits = _mix(_mix(counter + first) ^ second)
    keep = bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    return jnp.where(keep, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))
