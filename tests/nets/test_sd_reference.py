"""The U-Nets of Stable Diffusion and their blocks, compared with their formulas in PyTorch."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd import layers
from diffusion.nets.sd.unet import TINY_SD, TINY_SDXL
from tests.small_unets import SMALL, inputs, small_params
from tests.weights import randomized

# An independent implementation with the functions and the layout of PyTorch, which shares only parameter names.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


class Reference:
    """The published forward pass in torch.nn.functional, with parameters by their tree paths."""

    def __init__(self, torch, params):
        self.torch, self.f, self.params = torch, torch.nn.functional, params

    def node(self, path):
        node = self.params
        for name in path.split("/"):
            node = node[name]
        return node

    def get(self, path):
        return self.torch.tensor(np.array(self.node(path)))

    def has(self, path):
        leaf = self.params
        for name in path.split("/"):
            if name not in leaf:
                return False
            leaf = leaf[name]
        return True

    def linear(self, path, x):
        kernel = self.get(path + "/kernel")
        kernel = kernel[0, 0] if kernel.ndim == 4 else kernel
        return self.f.linear(x, kernel.T, self.get(path + "/bias") if self.has(path + "/bias") else None)

    def conv(self, path, x, stride=1):
        kernel = self.get(path + "/kernel").permute(3, 2, 0, 1)
        return self.f.conv2d(x, kernel, self.get(path + "/bias"), stride=stride, padding=kernel.shape[-1] // 2)

    def group_norm(self, path, x, groups, epsilon):
        return self.f.group_norm(x, groups, self.get(path + "/scale"), self.get(path + "/bias"), epsilon)

    def layer_norm(self, path, x):
        return self.f.layer_norm(x, x.shape[-1:], self.get(path + "/scale"), self.get(path + "/bias"), 1e-5)

    def resnet(self, path, x, time, groups):
        h = self.conv(path + "conv1", self.f.silu(self.group_norm(path + "norm1", x, groups, 1e-5)))
        h = h + self.linear(path + "time_emb_proj", self.f.silu(time))[:, :, None, None]
        h = self.conv(path + "conv2", self.f.silu(self.group_norm(path + "norm2", h, groups, 1e-5)))
        return h + (self.conv(path + "conv_shortcut", x) if self.has(path + "conv_shortcut") else x)

    def attention(self, path, x, context, heads):
        def split(y):
            return y.unflatten(-1, (heads, -1)).transpose(1, 2)

        query, key, value = (
            split(self.linear(path + name, source))
            for name, source in zip(("to_q", "to_k", "to_v"), (x, context, context), strict=True)
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return self.linear(path + "to_out_0", (weights @ value).transpose(1, 2).flatten(2))

    def feed_forward(self, path, x):
        value, gate = self.linear(path + "net_0/proj", x).chunk(2, dim=-1)
        return self.linear(path + "net_2", value * self.f.gelu(gate))

    def transformer_block(self, path, h, context, heads):
        norm = self.layer_norm(path + "norm1", h)
        h = h + self.attention(path + "attn1/", norm, norm, heads)
        h = h + self.attention(path + "attn2/", self.layer_norm(path + "norm2", h), context, heads)
        return h + self.feed_forward(path + "ff/", self.layer_norm(path + "norm3", h))

    def transformer(self, path, x, context, heads, groups):
        batch, channels, height, width = x.shape
        h = self.group_norm(path + "norm", x, groups, 1e-6).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        h = self.linear(path + "proj_in", h)
        if self.has(path + "transformer_blocks_0"):
            h = self.transformer_block(path + "transformer_blocks_0/", h, context, heads)
        else:  # several blocks, stacked along a leading axis
            node = self.node(path + "transformer_blocks")
            for layer in range(len(node["norm1"]["scale"])):
                block = Reference(self.torch, jax.tree.map(lambda leaf, layer=layer: leaf[layer], node))
                h = block.transformer_block("", h, context, heads)
        h = self.linear(path + "proj_out", h)
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    def sinusoids(self, value, width):
        angles = value[:, None] * self.torch.exp(-math.log(10000) * self.torch.arange(width // 2) / (width // 2))[None]
        return self.torch.cat([angles.cos(), angles.sin()], dim=-1)

    def embedding(self, path, x):
        return self.linear(path + "/linear_2", self.f.silu(self.linear(path + "/linear_1", x)))

    def blocks(self, path, x, time, context, heads, groups, skips=None):
        stored, layer = [], 0
        while self.has(f"{path}resnets_{layer}"):
            x = x if skips is None else self.torch.cat([x, skips.pop()], dim=1)
            x = self.resnet(f"{path}resnets_{layer}/", x, time, groups)
            if self.has(f"{path}attentions_{layer}"):
                x = self.transformer(f"{path}attentions_{layer}/", x, context, heads, groups)
            stored.append(x)
            layer += 1
        if self.has(path + "downsamplers_0"):
            x = self.conv(path + "downsamplers_0/conv", x, stride=2)
            stored.append(x)
        if self.has(path + "upsamplers_0"):
            x = self.conv(path + "upsamplers_0/conv", self.f.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x, stored

    def __call__(self, net, x, time, context, added):
        x, time, context = self.torch.tensor(np.array(x)).permute(0, 3, 1, 2), *map(self.tensor, (time, context))
        vector = self.embedding("time_embedding", self.sinusoids(time, net.channels[0]))
        if added is not None:
            pooled, ids = self.tensor(added.pooled), self.tensor(added.time_ids)
            ids = self.sinusoids(ids.flatten(), net.addition[0]).reshape(len(pooled), -1)
            vector = vector + self.embedding("add_embedding", self.torch.cat([pooled, ids], dim=-1))
        x = self.conv("conv_in", x)
        skips, last = [x], len(net.channels) - 1
        for level in range(last + 1):
            x, more = self.blocks(f"down_blocks_{level}/", x, vector, context, net.heads[level], net.groups)
            skips += more
        x = self.resnet("mid_block/resnets_0/", x, vector, net.groups)
        x = self.transformer("mid_block/attentions_0/", x, context, net.heads[last], net.groups)
        x = self.resnet("mid_block/resnets_1/", x, vector, net.groups)
        for level in range(last, -1, -1):
            path = f"up_blocks_{last - level}/"
            x, _ = self.blocks(path, x, vector, context, net.heads[level], net.groups, skips)
        assert not skips
        x = self.conv("conv_out", self.f.silu(self.group_norm("conv_norm_out", x, net.groups, 1e-5)))
        return x.permute(0, 2, 3, 1).numpy()

    def tensor(self, x):
        return self.torch.tensor(np.array(x))


def close(result, expected, tolerance):
    expected = np.asarray(expected)
    assert result.shape == expected.shape
    assert np.abs(np.asarray(result) - expected).max() < tolerance * np.abs(expected).max()


def image(x):
    """Transpose [B, C, H, W] to [B, H, W, C]."""
    return np.moveaxis(x.numpy(), 1, 3)


def test_blocks_agree_with_their_formulas(torch):
    rng = np.random.default_rng(1)
    x, time, context = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 4, 8), (2, 10), (2, 3, 5)))
    tokens = x.reshape(2, 24, 8)
    channels_first = torch.tensor(np.moveaxis(x, 3, 1) * 1.0)

    def both(block, call, *args):
        args = [jnp.asarray(each) for each in args]
        variables = randomized(lambda key: block.init(key, *args), 0.4)
        result = jax.jit(block.apply)(variables, *args)
        with torch.no_grad():
            close(result, call(Reference(torch, {"it": variables["params"]})), 2e-5)

    tensors = {"time": torch.tensor(time), "context": torch.tensor(context), "tokens": torch.tensor(tokens)}
    for outputs in (8, 12):
        block = layers.ResnetBlock(outputs, 4, "float32")
        both(block, lambda r: image(r.resnet("it/", channels_first, tensors["time"], 4)), x, time)
    # Standard deviations of the size of sqrt(epsilon) make the value of epsilon visible.
    small = channels_first * 3e-3
    for epsilon in (1e-5, 1e-6):
        both(layers.GroupNorm(2, epsilon), lambda r, e=epsilon: image(r.group_norm("it", small, 2, e)), x * 3e-3)
    attention = layers.Attention(2, "float32", "auto")
    both(attention, lambda r: r.attention("it/", tensors["tokens"], tensors["context"], 2).numpy(), tokens, context)
    both(attention, lambda r: r.attention("it/", tensors["tokens"], tensors["tokens"], 2).numpy(), tokens)
    both(layers.FeedForward("float32"), lambda r: r.feed_forward("it/", tensors["tokens"]).numpy(), tokens)
    for linear in (False, True):
        block = layers.SpatialTransformer(2, 2, 4, linear, "float32", "auto")
        both(block, lambda r: image(r.transformer("it/", channels_first, tensors["context"], 2, 4)), x, context)
    down, up = layers.Downsample("float32"), layers.Upsample("float32")
    both(down, lambda r: image(r.conv("it/conv", channels_first, 2)), x)
    both(up, lambda r: image(r.conv("it/conv", channels_first.repeat_interleave(2, 2).repeat_interleave(2, 3))), x)


@pytest.mark.parametrize("net", [SMALL, TINY_SD, TINY_SDXL], ids=["three_levels", "sd", "sdxl"])
def test_networks_agree_with_their_formulas(net, torch):
    """Images are not square; time, context and added conditioning differ between examples."""
    args = inputs(net)
    params = small_params() if net is SMALL else randomized(lambda key: net.init(key, *args), 0.1)
    result = jax.jit(net.apply)(params, *args)
    with torch.no_grad():
        close(result, Reference(torch, params["params"])(net, *args), 1e-4)
