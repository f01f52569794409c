"""The network of MDM-Prime's two-dimensional example: all digits at once through a multilayer perceptron."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.nets.layers import LayerNorm, Linear, dropout, dropout_seeds, shard_batch


class Mlp(nn.Module):
    """Logits [B, L, K] of the digits [B, L l] of a few tokens.

    Every digit is embedded to `hidden` numbers from one table; all of them, with a learned linear map of the noise
    level when `time` is set, go through `layers` times linear, layer norm, swish, dropout. The swish is
    x sigmoid(beta x) with beta learned.
    """

    positions: int
    classes: int
    base: int
    digits: int = 1
    hidden: int = 512
    layers: int = 4
    dropout: float = 0.1
    time: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        state: Int[Array, "B N"],
        sigma: Float[Array, " B"] | None = None,
        *,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L K"]:
        """Logits of every position; `sigma` None means zeros, `keys` turn dropout on."""
        table = self.param("embedding", nn.initializers.normal(1.0), (self.base + 1, self.hidden), jnp.float32)
        state = state.reshape(len(state), self.positions * self.digits)
        x = shard_batch(jnp.take(table, state, axis=0).reshape(len(state), -1))
        if self.time:
            level = jnp.zeros(len(state)) if sigma is None else sigma
            x = jnp.concatenate([x, Linear(1, name="time")(level[:, None])], axis=-1)
        seeds = dropout_seeds(keys, self.layers, 1) if keys is not None and self.dropout > 0 else None
        for number in range(self.layers):
            x = Linear(self.hidden, dtype=self.dtype, name=f"linear{number}")(x)
            x = LayerNorm(name=f"norm{number}")(x)
            beta = self.param(f"beta{number}", nn.initializers.ones, (), jnp.float32)
            x = x * nn.sigmoid(beta * x)
            x = x if seeds is None else dropout(x[:, None], seeds[number, :, 0], self.dropout)[:, 0]
        x = Linear(self.positions * self.classes, initializer="zeros", dtype=self.dtype, name="head")(x)
        return x.reshape(len(state), self.positions, self.classes)


def flops_per_example(net: Mlp) -> float:
    """Floating-point operations of one example's forward pass, multiply-adds as two; training takes three times."""
    inputs = net.positions * net.digits * net.hidden
    return 2.0 * net.hidden * (inputs + (net.layers - 1) * net.hidden + net.positions * net.classes)
