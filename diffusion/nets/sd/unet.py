"""The U-Net of Stable Diffusion 1.5 (arXiv 2112.10752) and SDXL (arXiv 2307.01952), and small variants."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.layers import Linear, rematerialized, sinusoids
from diffusion.nets.sd.layers import Conv, Downsample, GroupNorm, ResnetBlock, SpatialTransformer, Upsample
from diffusion.partition import shard_batch

TIME_IDS = 6  # original height and width, top and left of the crop, and target height and width of SDXL


class AddedConditioning(NamedTuple):
    """Conditioning of SDXL besides the context: the pooled text embedding, and the sizes of `TIME_IDS`."""

    pooled: Float[Array, "B P"]
    time_ids: Float[Array, "B 6"]


class TextConditioning(NamedTuple):
    """What a U-Net reads of its prompts: the context, and in SDXL the added conditioning."""

    context: Float[Array, "B S E"]
    added: AddedConditioning | None = None


class Embedding(nn.Module):
    """linear_2(silu(linear_1(x))) in float32, for the sinusoids of the time or for the added conditioning."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B T"]:
        return Linear(self.width, name="linear_2")(nn.silu(Linear(self.width, name="linear_1")(x)))


class Level(nn.Module):
    """Residual blocks of one level, each with a spatial transformer if `transformer`, its fields, is not empty.

    With `skips`, each block concatenates the last of them to its input. The level returns its output, and a list with
    the outputs of all blocks and of the down-sampler, which are the skips of the up-sampling levels.
    """

    features: int
    layers: int
    groups: int
    transformer: tuple
    down: bool
    up: bool
    dtype: str
    remat: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W I"],
        time: Float[Array, "B T"],
        context: Float[Array, "B S E"],
        skips: list[Float[Array, "B H W J"]] | None = None,
    ) -> tuple[Float[Array, "B h w O"], list[Float[Array, "..."]]]:
        stored, resnet = [], rematerialized(ResnetBlock, self.remat)
        for layer in range(self.layers):
            x = x if skips is None else jnp.concatenate([x, skips.pop()], axis=-1)
            x = resnet(self.features, self.groups, self.dtype, name=f"resnets_{layer}")(x, time)
            if self.transformer:
                x = SpatialTransformer(*self.transformer, name=f"attentions_{layer}")(x, context)
            stored.append(x)
        if self.down:
            x = Downsample(self.dtype, name="downsamplers_0")(x)
            stored.append(x)
        if self.up:
            x = Upsample(self.dtype, name="upsamplers_0")(x)
        return x, stored


class Middle(nn.Module):
    """Residual block, spatial transformer, residual block."""

    features: int
    groups: int
    transformer: tuple
    dtype: str
    remat: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W D"], time: Float[Array, "B T"], context: Float[Array, "B S E"]
    ) -> Float[Array, "B H W D"]:
        resnet = rematerialized(ResnetBlock, self.remat)
        x = resnet(self.features, self.groups, self.dtype, name="resnets_0")(x, time)
        x = SpatialTransformer(*self.transformer, name="attentions_0")(x, context)
        return resnet(self.features, self.groups, self.dtype, name="resnets_1")(x, time)


class UNet(nn.Module):
    """A U-Net for noisy images [B, H, W, C] at a time, conditioned on a context [B, S, context_width].

    Level i has `channels[i]` channels on feature maps smaller by 2^i, with `layers` residual blocks down and one more
    up. After each block there are `transformer_layers[i]` transformer layers with `heads[i]` heads, 0 for no attention;
    the middle has `middle_layers` of them. (The published configurations call the number of heads
    "attention_head_dim".) The sinusoids of the time have the width of the first level, and its embedding `time_width`.
    With `addition` = (width, pooled width) the network has an `AddedConditioning`, with sinusoids of that width for
    each of its time_ids. There is no dropout. Parameters are initialized in float32, and products run in `dtype`.
    `attention` is the backend of self-attention over long sequences. In the backward pass, residual and transformer
    blocks are computed again by the policy `remat` (none, dots or full). The output is the prediction of noise or
    velocity.

    Raises:
      ValueError: with the name of the field, if sizes do not divide, or if `addition` and the input do not agree.
    """

    channels: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    heads: tuple[int, ...]
    context_width: int
    time_width: int
    layers: int = 2
    middle_layers: int = 1
    in_channels: int = 4
    out_channels: int = 4
    groups: int = 32
    linear_projection: bool = False
    addition: tuple[int, int] | None = None
    attention: str = "auto"
    dtype: str = "float32"
    remat: str = "none"

    def _check(self, x: Array, context: Array, added: AddedConditioning | None) -> None:
        levels, factor = len(self.channels), 2 ** (len(self.channels) - 1)
        for name in ("transformer_layers", "heads"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"unet.{name}: {getattr(self, name)} has not one number for each of {levels} levels")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % self.groups:
                raise ValueError(f"unet.groups: {self.groups} do not divide {width} channels")
            if width % heads:
                raise ValueError(f"unet.heads: {heads} do not divide {width} channels")
        if x.shape[1] % factor or x.shape[2] % factor:
            raise ValueError(f"unet.channels: {levels} levels halve {x.shape[1]} x {x.shape[2]} pixels to odd sizes")
        if x.shape[-1] != self.in_channels:
            raise ValueError(f"unet.in_channels: the image has {x.shape[-1]}, the network {self.in_channels}")
        if context.shape[-1] != self.context_width:
            raise ValueError(
                f"unet.context_width: the context has {context.shape[-1]}, the network {self.context_width}"
            )
        if (self.addition is None) != (added is None):
            passed = "not passed" if added is None else "passed"
            raise ValueError(f"unet.addition: is {self.addition}, but an added conditioning is {passed}")

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        context: Float[Array, "B S E"],
        added: AddedConditioning | None = None,
    ) -> Float[Array, "B H W C"]:
        """Return the prediction in float32, at real-valued times in 0 .. 999."""
        self._check(x, context, added)
        embedding = Embedding(self.time_width, name="time_embedding")(sinusoids(time, self.channels[0]))
        if self.addition is not None:
            assert added is not None
            ids = sinusoids(added.time_ids.reshape(-1), self.addition[0]).reshape(len(x), -1)
            cond = jnp.concatenate([added.pooled.astype(jnp.float32), ids], axis=-1)
            embedding = embedding + Embedding(self.time_width, name="add_embedding")(cond)

        def transformer(level, layers):
            fields = (self.heads[level], layers, self.groups, self.linear_projection, self.dtype, self.attention)
            return (*fields, self.remat) if layers else ()

        shared = (self.dtype, self.remat)
        levels, last = list(zip(self.channels, self.transformer_layers, strict=True)), len(self.channels) - 1
        x = shard_batch(Conv(self.channels[0], dtype=self.dtype, name="conv_in")(x).astype(jnp.float32))
        skips = [x]
        for level, (width, blocks) in enumerate(levels):
            fields = (width, self.layers, self.groups, transformer(level, blocks), level < last, False, *shared)
            x, stored = Level(*fields, name=f"down_blocks_{level}")(x, embedding, context)
            skips += stored
        fields = (self.channels[last], self.groups, transformer(last, self.middle_layers), *shared)
        x = Middle(*fields, name="mid_block")(x, embedding, context)
        for level, (width, blocks) in reversed(list(enumerate(levels))):
            fields = (width, self.layers + 1, self.groups, transformer(level, blocks), False, level > 0, *shared)
            level_skips, skips = skips[-self.layers - 1 :], skips[: -self.layers - 1]
            x, _ = Level(*fields, name=f"up_blocks_{last - level}")(x, embedding, context, level_skips)
        x = nn.silu(GroupNorm(self.groups, 1e-5, name="conv_norm_out")(x))
        return Conv(self.out_channels, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32)


SD15 = UNet(
    channels=(320, 640, 1280, 1280),
    transformer_layers=(1, 1, 1, 0),
    heads=(8, 8, 8, 8),
    context_width=768,
    time_width=1280,
)

SDXL = UNet(
    channels=(320, 640, 1280),
    transformer_layers=(0, 2, 10),
    heads=(5, 10, 20),
    context_width=2048,
    time_width=1280,
    middle_layers=10,
    linear_projection=True,
    addition=(256, 1280),
)

# Small networks with every part of the two above, for comparisons with PyTorch.
TINY_SD = UNet(channels=(32, 64), transformer_layers=(0, 1), heads=(4, 4), context_width=32, time_width=128)

TINY_SDXL = UNet(
    channels=(32, 64),
    transformer_layers=(0, 2),
    heads=(4, 4),
    context_width=64,
    time_width=128,
    middle_layers=2,
    linear_projection=True,
    addition=(8, 32),
)
