"""A small convolutional classifier of images; its last hidden layer is the feature space of image metrics."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from diffusion.nets.layers import Linear, dropout, dropout_seeds
from diffusion.partition import shard_batch
from diffusion.types import Tokens


class Classifier(nn.Module):
    """Two convolutions and a pooling per width in `channels`, a hidden layer of width `hidden`, and `labels` logits.

    Pixel values 0 .. values - 1 are scaled to [-1, 1].
    """

    shape: tuple[int, int, int]
    values: int
    labels: int
    channels: tuple[int, ...] = (16, 32)
    hidden: int = 64
    dropout: float = 0.25
    dtype: str = "float32"

    def setup(self):
        self.convolutions = [
            nn.Conv(
                width, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.he_uniform(), name=f"conv{level}{place}"
            )
            for level, width in enumerate(self.channels)
            for place in "ab"
        ]
        self.penultimate = Linear(self.hidden, dtype=self.dtype, name="hidden_layer")
        self.output = Linear(self.labels, dtype=self.dtype, name="output_layer")

    def features(self, tokens: Tokens) -> Float[Array, "B D"]:
        """Return the last hidden layer, in float32."""
        height, width, colors = self.shape
        images = tokens.reshape(-1, colors, height, width)
        x = shard_batch(jnp.moveaxis(images.astype(jnp.float32), 1, 3) * (2 / (self.values - 1)) - 1)
        for number, convolution in enumerate(self.convolutions):
            x = nn.relu(convolution(x))
            x = nn.max_pool(x, (2, 2), (2, 2)) if number % 2 else x
        return nn.relu(self.penultimate(x.reshape(len(tokens), -1))).astype(jnp.float32)

    def __call__(
        self,
        tokens: Tokens,
        sigma: Float[Array, " B"] | None = None,
        *,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B K"]:
        """Return logits over labels; `sigma` is not read, and `keys`, one per example, turn on dropout."""
        return self.classify(self.features(tokens), keys)

    def classify(self, features: Float[Array, "B D"], keys: Key[Array, " B"] | None = None) -> Float[Array, "B K"]:
        """Return the logits of features."""
        if keys is not None and self.dropout > 0:
            features = dropout(features[:, None], dropout_seeds(keys, 1, 1)[0, :, 0], self.dropout)[:, 0]
        return self.output(features)
