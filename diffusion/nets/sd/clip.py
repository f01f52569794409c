"""CLIP (Radford et al., arXiv 2103.00020): text encoders of Stable Diffusion, image encoders, and scores of pairs.

Modules and parameters have the names of Hugging Face's checkpoints, with layers stacked along a leading axis:
`encoder.layers.3.mlp.fc1.weight` is slice 3 of encoder/layers/mlp/fc1/kernel. Products run in `dtype`; norms, softmax
and the residual stream are float32. `attention` is a backend of `attention.attend`, by default plain products, because
sequences are shorter than `layers.KERNEL_TOKENS`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.attention_masks import Causal, Full
from diffusion.nets.layers import LayerNorm, Linear
from diffusion.nets.sd.clip_encoder import Activation, Encoder
from diffusion.nets.sd.patches import PatchProjection

Images = Float[Array, "B H W 3"]  # after `preprocessing.preprocess`
Ids = Int[Array, "B S"]
Features = Float[Array, "B P"]


class EncodedText(NamedTuple):
    """The output of the final norm, the output of the last layer but one without a norm, and one vector per text."""

    hidden: Float[Array, "B S D"]
    penultimate: Float[Array, "B S D"]
    pooled: Float[Array, "B P"]


class Table(nn.Module):
    """Rows of a table [rows, width] by their numbers, in float32."""

    rows: int
    width: int

    @nn.compact
    def __call__(self, numbers: Int[Array, "*shape"]) -> Float[Array, "*shape D"]:
        table = self.param("embedding", nn.initializers.normal(0.02), (self.rows, self.width), jnp.float32)
        return jnp.take(table, numbers, axis=0).astype(jnp.float32)


class TextEmbeddings(nn.Module):
    """The sum of the embeddings of token and position."""

    vocab_size: int
    length: int
    width: int

    @nn.compact
    def __call__(self, ids: Ids) -> Float[Array, "B S D"]:
        tokens = Table(self.vocab_size, self.width, name="token_embedding")(ids)
        positions = Table(self.length, self.width, name="position_embedding")(jnp.arange(ids.shape[1]))
        return tokens + positions[None]


class CLIPText(nn.Module):
    """The text encoder of CLIP: a causal transformer on tokens.

    The pooled vector is the output of the final norm at the end of the text, which is the token with the highest id,
    times a matrix to `projection` numbers (None: no matrix).
    """

    width: int
    layers: int
    heads: int
    feed_forward: int
    activation: Activation = "quick_gelu"
    projection: int | None = None
    vocab_size: int = 49408
    length: int = 77
    dtype: str = "float32"
    attention: str = "plain"

    @nn.compact
    def __call__(self, ids: Ids) -> EncodedText:
        """Return the encoded texts in float32.

        Raises:
          ValueError: if a text is longer than `length`, heads do not divide the width, or an activation is unknown.
        """
        if ids.shape[1] > self.length:
            raise ValueError(
                f"clip.length: {ids.shape[1]} tokens exceed the encoder's {self.length}; truncate the text"
            )
        x = TextEmbeddings(self.vocab_size, self.length, self.width, name="embeddings")(ids)
        sizes = (self.layers, self.heads, self.feed_forward, self.activation)
        last, penultimate = Encoder(*sizes, Causal(), self.dtype, self.attention, name="encoder")(x)
        hidden = LayerNorm(bias=True, name="final_layer_norm")(last)
        pooled = jnp.take_along_axis(hidden, ids.argmax(axis=1)[:, None, None], axis=1)[:, 0]
        if self.projection is not None:
            pooled = Linear(self.projection, bias=False, dtype=self.dtype, name="text_projection")(pooled)
        return EncodedText(hidden, penultimate, pooled.astype(jnp.float32))


class ImageEmbeddings(nn.Module):
    """The class token and the embedded patches, each plus the embedding of its position."""

    patch: int
    width: int
    dtype: str

    @nn.compact
    def __call__(self, pixels: Images) -> Float[Array, "B S D"]:
        patches = PatchProjection(self.width, self.patch, False, self.dtype, name="patch_embedding")(pixels)
        token = self.param("class_embedding", nn.initializers.normal(0.02), (self.width,), jnp.float32)
        tokens = jnp.broadcast_to(token[None, None], (len(pixels), 1, self.width))
        x = jnp.concatenate([tokens.astype(jnp.float32), patches.astype(jnp.float32)], axis=1)
        return x + Table(x.shape[1], self.width, name="position_embedding")(jnp.arange(x.shape[1]))[None]


class CLIPVision(nn.Module):
    """The image encoder of CLIP: a vision transformer on square images of `image` pixels a side.

    The feature is the output of the final norm at the class token, times a matrix to `projection` numbers.
    """

    width: int
    layers: int
    heads: int
    feed_forward: int
    projection: int
    activation: Activation = "quick_gelu"
    image: int = 224
    patch: int = 14
    dtype: str = "float32"
    attention: str = "plain"

    @nn.compact
    def __call__(self, pixels: Images) -> Features:
        """Return the features of normalized images in float32, not of unit norm.

        Raises:
          ValueError: if images have another size, patches do not divide them, heads do not divide the width, or an
            activation is unknown.
        """
        if pixels.shape[1:3] != (self.image, self.image):
            size = f"{pixels.shape[1]} x {pixels.shape[2]}"
            raise ValueError(f"clip.image: images have {size} pixels, the encoder {self.image}; preprocess them")
        if self.image % self.patch:
            raise ValueError(f"clip.patch: patches of {self.patch} pixels do not divide images of {self.image}")
        x = ImageEmbeddings(self.patch, self.width, self.dtype, name="embeddings")(pixels)
        x = LayerNorm(bias=True, name="pre_layrnorm")(x)  # the spelling of the checkpoints
        sizes = (self.layers, self.heads, self.feed_forward, self.activation)
        last, _ = Encoder(*sizes, Full(), self.dtype, self.attention, name="encoder")(x)
        token = LayerNorm(bias=True, name="post_layernorm")(last[:, 0])
        features = Linear(self.projection, bias=False, dtype=self.dtype, name="visual_projection")(token)
        return features.astype(jnp.float32)


def unit(features: Features) -> Features:
    """Return each row divided by its Euclidean norm."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


class CLIP(nn.Module):
    """Both encoders, with features of unit norm in one space."""

    text_model: CLIPText
    vision_model: CLIPVision

    def image_features(self, pixels: Images) -> Features:
        """Return the unit features of normalized images."""
        return unit(self.vision_model(pixels))

    def text_features(self, ids: Ids) -> Features:
        """Return the unit features of texts."""
        return unit(self.text_model(ids).pooled)

    def score(self, pixels: Images, ids: Ids) -> Float[Array, " B"]:
        """Return the cosine of each image and its text: the CLIP score, or HPS v2.1 with its weights; not scaled."""
        return (self.image_features(pixels) * self.text_features(ids)).sum(axis=-1)

    __call__ = score


CLIP_L_TEXT = CLIPText(width=768, layers=12, heads=12, feed_forward=3072)
BIGG_TEXT = CLIPText(width=1280, layers=32, heads=20, feed_forward=5120, activation="gelu", projection=1280)
CLIP_H_TEXT = CLIPText(width=1024, layers=24, heads=16, feed_forward=4096, activation="gelu", projection=1024)
CLIP_L_VISION = CLIPVision(width=1024, layers=24, heads=16, feed_forward=4096, projection=768)
CLIP_H_VISION = CLIPVision(width=1280, layers=32, heads=16, feed_forward=5120, projection=1024, activation="gelu")
CLIP_L = CLIP(CLIP_L_TEXT.clone(projection=768), CLIP_L_VISION)
CLIP_H = CLIP(CLIP_H_TEXT, CLIP_H_VISION)  # also HPS v2.1 (arXiv 2306.09341)

# Small encoders with every part, for comparisons with PyTorch.
TINY_TEXT = CLIPText(width=32, layers=3, heads=4, feed_forward=64, projection=24, vocab_size=99, length=11)
TINY_VISION = CLIPVision(width=32, layers=2, heads=4, feed_forward=64, projection=24, image=24, patch=8)
TINY_CLIP = CLIP(TINY_TEXT, TINY_VISION)
