"""The text encoder of BLIP (arXiv 2201.12086): BERT with cross-attention to the tokens of an image in every layer.

Modules and parameters have the names of the public checkpoints (see `diffusion.convert.template`); "layer" is a loop
over equal layers. Products run in `dtype`; norms, softmax, and the residual stream are float32.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion.nets.attention import plain
from diffusion.nets.layers import LayerNorm, Linear, stacked
from diffusion.nets.sd.layers import gelu
from diffusion.partition import shard_batch

Norm = partial(LayerNorm, bias=True, epsilon=1e-12, name="LayerNorm")


class Embeddings(nn.Module):
    """norm(word + position), without the token types of BERT."""

    vocab_size: int
    context: int
    width: int

    @nn.compact
    def __call__(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        normal = nn.initializers.normal(0.02)
        words = nn.Embed(self.vocab_size, self.width, embedding_init=normal, name="word_embeddings")(ids)
        places = nn.Embed(self.context, self.width, embedding_init=normal, name="position_embeddings")
        positions = places(jnp.arange(ids.shape[1]))
        return Norm()(words.astype(jnp.float32) + positions[None].astype(jnp.float32))


class Mixing(nn.Module):
    """softmax(q k^T / sqrt(d)) v of x to `memory`, for the keys that are allowed, with biases and no output map."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], memory: Float[Array, "B S E"], allowed: Bool[Array, "B 1 S"] | None
    ) -> Float[Array, "B L D"]:
        batch, _, width = x.shape

        def heads(source, name):
            y = Linear(width, initializer=0.02, dtype=self.dtype, name=name)(source)
            return y.reshape(batch, -1, self.heads, width // self.heads)

        mixed = plain(heads(x, "query"), heads(memory, "key"), heads(memory, "value"), allowed)
        return mixed.reshape(x.shape)


class AddAndNorm(nn.Module):
    """norm(x + dense(h))."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"], h: Float[Array, "B L F"]) -> Float[Array, "B L D"]:
        return Norm()(x + Linear(x.shape[-1], initializer=0.02, dtype=self.dtype, name="dense")(h))


class TextAttention(nn.Module):
    """norm(x + dense(mixing(x, memory)))."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], memory: Float[Array, "B S E"], allowed: Bool[Array, "B 1 S"] | None = None
    ) -> Float[Array, "B L D"]:
        return AddAndNorm(self.dtype, name="output")(x, Mixing(self.heads, self.dtype, name="self")(x, memory, allowed))


class Intermediate(nn.Module):
    """gelu(dense(x)) with four times the width."""

    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L F"]:
        return gelu(Linear(4 * x.shape[-1], initializer=0.02, dtype=self.dtype, name="dense")(x))


class TextLayer(nn.Module):
    """Self-attention, cross-attention to the image, and an MLP, each followed by a residual sum and a norm."""

    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], image: Float[Array, "B S E"], allowed: Bool[Array, "B 1 L"]
    ) -> tuple[Float[Array, "B L D"], None]:
        x = TextAttention(self.heads, self.dtype, name="attention")(x, x, allowed)
        x = TextAttention(self.heads, self.dtype, name="crossattention")(x, image)
        h = Intermediate(self.dtype, name="intermediate")(x)
        return shard_batch(AddAndNorm(self.dtype, name="output")(x, h)), None


class Encoder(nn.Module):
    """The layers, in a loop."""

    layers: int
    heads: int
    dtype: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], image: Float[Array, "B S E"], allowed: Bool[Array, "B 1 L"]
    ) -> Float[Array, "B L D"]:
        layer = stacked(TextLayer, self.layers, in_axes=nn.broadcast)(self.heads, self.dtype, name="layer")
        return layer(x, image, allowed)[0]


class TextEncoder(nn.Module):
    """BERT (arXiv 1810.04805) with norms after the sums, attention to all tokens but padding, and to an image."""

    vocab_size: int
    context: int
    width: int
    layers: int
    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B L"], mask: Int[Array, "B L"] | Bool[Array, "B L"], image: Float[Array, "B S E"]
    ) -> Float[Array, "B L D"]:
        """Return the last hidden states; `mask` is 0 at padding.

        Raises:
          ValueError: if the texts are longer than the context.
        """
        if ids.shape[1] > self.context:
            raise ValueError(f"ids: {ids.shape[1]} tokens exceed the network's {self.context}; truncate the texts")
        x = Embeddings(self.vocab_size, self.context, self.width, name="embeddings")(ids)
        return Encoder(self.layers, self.heads, self.dtype, name="encoder")(shard_batch(x), image, mask[:, None] != 0)
