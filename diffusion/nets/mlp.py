"""The network of MDM-Prime's two-dimensional example, a multilayer perceptron of all sub-tokens."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.nets.layers import LayerNorm, Linear, dropout, dropout_seeds
from diffusion.partition import shard_batch


class Mlp(nn.Module):
    """A multilayer perceptron with logits [B, L, K] for sub-tokens [B, L l].

    One table embeds every sub-token with width `hidden`. The embeddings of all sub-tokens, and a learned linear map of
    the noise level if `time` is set, pass `layers` times a linear map, layer norm, swish and dropout. The swish is
    x sigmoid(beta x) with learned beta.
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
        """Return logits for every position.

        `sigma` None is a noise level of 0, and `keys`, one per example, turn on dropout.
        """
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
