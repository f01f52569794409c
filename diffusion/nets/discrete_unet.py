"""The discrete U-Net of MDM-Prime, from the sub-tokens of pixels to logits over pixel values.

The layout is that of ADM (Dhariwal and Nichol, 2021, appendix C) without its first convolution: the embeddings of the
sub-tokens are the first feature map. Consecutive equal blocks are a loop over stacked parameters, so that each distinct
block is compiled once.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from diffusion.nets.attention import attend
from diffusion.nets.discrete_unet_layout import Part, layout, runs
from diffusion.nets.layers import Linear, dropout, dropout_seeds, stacked
from diffusion.nets.self_conditioning_adapter import SelfConditioningAdapter
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.partition import shard_batch

torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """A convolution with "same" padding, with kernel and bias in float32, computed in `dtype`."""

    features: int
    size: int = 3
    zero: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B H W O"]:
        return nn.Conv(
            self.features,
            (self.size, self.size),
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros if self.zero else torch_uniform,
            name="conv",
        )(x)


class ResBlock(nn.Module):
    """x + conv(drop(silu((1 + scale) norm(conv(silu(norm(x)))) + shift))), with the last convolution zero at the start.

    Scale and shift are those of ADM, but learned constants, because the published network has no time conditioning.
    """

    outputs: int
    dropout: float
    groups: int
    constant_init: float
    dtype: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], seeds: UInt32[Array, "B 2"] | None) -> Float[Array, "B H W O"]:
        def uniform(key, shape, dtype=jnp.float32):
            return nn.initializers.uniform(2 * self.constant_init)(key, shape, dtype) - self.constant_init

        h = nn.silu(nn.GroupNorm(self.groups, epsilon=self.epsilon, name="norm1")(x))
        h = Conv(self.outputs, dtype=self.dtype, name="conv1")(h)
        scale, shift = jnp.split(self.param("constant", uniform, (2 * self.outputs,), jnp.float32), 2)
        h = nn.GroupNorm(self.groups, epsilon=self.epsilon, name="norm2")(h.astype(jnp.float32))
        h = nn.silu(h * (1 + scale)[None, None, None] + shift[None, None, None])
        if seeds is not None:
            h = dropout(h.reshape(len(h), -1, self.outputs), seeds, self.dropout).reshape(h.shape)
        h = Conv(self.outputs, zero=True, dtype=self.dtype, name="conv2")(h)
        if x.shape[-1] != self.outputs:
            x = Linear(self.outputs, dtype=self.dtype, name="skip")(x)
        return shard_batch(x.astype(jnp.float32) + h)


class SpatialAttention(nn.Module):
    """x + attention(norm(x)) over all pixels, with the last projection zero at the start."""

    head_channels: int
    groups: int
    dtype: str
    attention: str
    epsilon: float

    @nn.compact
    def __call__(self, x: Float[Array, "B H W D"]) -> Float[Array, "B H W D"]:
        batch, height, width, channels = x.shape
        h = nn.GroupNorm(self.groups, epsilon=self.epsilon, name="norm")(x).reshape(batch, height * width, channels)
        qkv = Linear(3 * channels, dtype=self.dtype, name="qkv")(h)
        query, key, value = (
            part.reshape(batch, height * width, -1, self.head_channels) for part in jnp.split(qkv, 3, axis=-1)
        )
        mixed = attend(query, key, value, backend=self.attention).reshape(h.shape)
        mixed = Linear(channels, initializer="zeros", dtype=self.dtype, name="out")(mixed)
        return shard_batch(x + mixed.reshape(x.shape))


class RunBlock(nn.Module):
    """A block of a run; `residual` and `spatial` are the fields of ResBlock and of SpatialAttention, () for none."""

    residual: tuple
    spatial: tuple
    stores: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W O"], skip: Float[Array, "B H W J"] | None, seeds: UInt32[Array, "B 2"] | None
    ) -> tuple[Float[Array, "B H W O"], Float[Array, "B H W O"] | None]:
        x = x if skip is None else jnp.concatenate([x, skip], axis=-1)
        x = ResBlock(*self.residual, name="block")(x, seeds)
        x = SpatialAttention(*self.spatial, name="attention")(x) if self.spatial else x
        return x, x if self.stores else None


class UNet(nn.Module):
    """A U-Net with logits over `classes` values for every pixel of an image of `shape` (height, width, colors).

    One table of (base + 1) x (D / l) embeds the sub-tokens of all colors, with D = `embedding_channels`, or `channels`
    where that is 0. Sub-token j of color c fills the feature planes [(c l + j) D / l, (c l + j + 1) D / l); see
    `SubtokenEmbedding` for its options. Published networks whose pixels are two symbols have D = 144.

    The defaults are the published network for CIFAR-10 and ImageNet-32, except for `constant_init`. The official code
    draws the scale and shift of every block from U(-sqrt(384), sqrt(384)), probably by mistake, since they dominate the
    output of the block; the published start is constant_init=19.6, and 0 starts at plain normalization. `head_size` is
    the kernel size of the last convolution, whose cost grows with `classes`. Group norms of public checkpoints have the
    epsilon 1e-5.

    Parameters are float32. Convolutions and attention run in `dtype`, norms and the residual stream in float32. `remat`
    ("none", "full") recomputes blocks in the backward pass. The parameters of block n are `block{n}` and
    `attention{n}`; those of a run of two or more equal blocks from n on are stacked along a leading axis, as `block`
    and `attention` of `blocks{n}`. Each iteration of the loop has `unroll` blocks (CPUs run convolutions in a loop ten
    times slower). With `memory`, the network has a self-conditioning input, a soft embedding of its last prediction.

    Raises:
      ValueError: with the name of the field, if sizes do not divide.
    """

    shape: tuple[int, int, int]
    classes: int
    base: int
    digits: int = 1
    channels: int = 96
    multipliers: tuple[int, ...] = (3, 4, 4)
    res_blocks: int = 5
    attention_factors: tuple[int, ...] = (2,)
    head_channels: int = 64
    dropout: float = 0.4
    groups: int = 32
    constant_init: float = 0.0
    head_size: int = 3
    embedding_channels: int = 0
    norm_epsilon: float = 1e-6
    dtype: str = "float32"
    remat: str = "none"
    unroll: int = 1
    attention: str = "auto"
    merge: str = "concat"
    shared: bool = True
    memory: bool = False

    def setup(self):
        self.embedding = SubtokenEmbedding(self.base, self.digits, self.width, self.merge, self.shared)
        if self.memory:
            self.adapter = SelfConditioningAdapter(self.width, self.dtype)

    @property
    def width(self) -> int:
        """The width of the embedding of one color."""
        return self.embedding_channels or self.channels

    def token_table(self, codes: Int[Array, "1 N"]) -> Float[Array, "K D"]:
        """Return the embeddings of all values."""
        return self.embedding(codes)[0]

    def parts(self) -> list[Part]:
        """Return the layout of the network.

        Raises:
          ValueError: with the name of the field, if the layout does not fit the image.
        """
        height, width, colors = self.shape
        factor = 2 ** (len(self.multipliers) - 1)
        if height % factor or width % factor:
            raise ValueError(
                f"unet.multipliers: {len(self.multipliers)} levels halve {height} x {width} pixels to odd sizes; "
                "pass fewer"
            )
        if self.remat not in ("none", "full"):
            raise ValueError(f"model.remat: unknown {self.remat!r} for a U-Net; known: none, full")
        parts = layout(colors * self.width, self.channels, self.multipliers, self.res_blocks, self.attention_factors)
        for part in parts:
            if part.inputs % self.groups or part.outputs % self.groups:
                raise ValueError(f"unet.groups: {self.groups} do not divide {part.inputs} and {part.outputs} channels")
            if part.attention and part.outputs % self.head_channels:
                raise ValueError(f"unet.head_channels: {self.head_channels} do not divide {part.outputs} channels")
        return parts

    @nn.compact
    def __call__(
        self,
        state: Int[Array, "B N"],
        sigma: Float[Array, " B"] | None = None,
        *,
        memory: Float[Array, "B L D"] | None = None,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L K"]:
        """Return logits [B, (c h w), K] for sub-tokens [B, (c h w l)].

        `sigma` is not read, `memory` None is no self-conditioning input, and `keys`, one per example, turn on dropout.
        """
        height, width, colors = self.shape
        parts = self.parts()
        blocks = sum(part.kind == "block" for part in parts)
        seeds = dropout_seeds(keys, blocks, 1) if keys is not None and self.dropout > 0 else None
        x = self.embedding(state)
        if self.memory:
            x = self.adapter(x, memory)
        x = jnp.moveaxis(x.reshape(-1, colors, height, width, self.width), 1, 3)
        x = shard_batch(x.reshape(-1, height, width, colors * self.width))
        stored, number = [x], 0
        for run in runs(parts):
            part, turns, maps = run[0], len(run), ()
            if part.kind == "pool":
                x = nn.avg_pool(x, (2, 2), (2, 2))
            elif part.kind == "unpool":
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            else:
                skips = [stored.pop() for _ in run] if part.joins else []
                words = None if seeds is None else seeds[number : number + turns, :, 0]
                residual = (part.outputs, self.dropout, self.groups, self.constant_init, self.dtype, self.norm_epsilon)
                spatial = (self.head_channels, self.groups, self.dtype, self.attention, self.norm_epsilon)
                spatial = spatial if part.attention else ()
                if turns > 1:
                    loop = stacked(RunBlock, turns, unroll=min(self.unroll, turns), remat=self.remat)
                    loop = loop(residual, spatial, part.stores, name=f"blocks{number}")
                    x, maps = loop(x, jnp.stack(skips) if skips else None, words)
                else:
                    x = jnp.concatenate([x, *skips], axis=-1)
                    block = nn.remat(ResBlock) if self.remat == "full" else ResBlock
                    x = block(*residual, name=f"block{number}")(x, None if words is None else words[0])
                    x = SpatialAttention(*spatial, name=f"attention{number}")(x) if spatial else x
                number += turns
            if part.stores:
                stored += list(maps) if turns > 1 else [x]
        x = nn.silu(nn.GroupNorm(self.groups, epsilon=self.norm_epsilon, name="norm")(x))
        logits = Conv(colors * self.classes, self.head_size, zero=True, dtype=self.dtype, name="head")(x)
        logits = jnp.moveaxis(logits.reshape(-1, height, width, colors, self.classes), 3, 1)
        return logits.reshape(len(state), colors * height * width, self.classes)
