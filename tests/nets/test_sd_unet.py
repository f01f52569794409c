"""Stable Diffusion's U-Nets: published counts and names, every block against its formula in PyTorch, and the whole."""

import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.layers import sinusoids
from diffusion.nets.sd import layers, unet
from diffusion.nets.sd.unet import SD15, SDXL, TINY_SD, TINY_SDXL, Added, UNet
from tests.weights import randomised

BATCH, HEIGHT, WIDTH, TOKENS = 2, 8, 4, 3
SMALL = UNet(
    channels=(8, 12, 16),
    transformer_layers=(0, 1, 0),
    heads=(1, 3, 2),
    context_width=5,
    time_width=10,
    layers=1,
    in_channels=3,
    out_channels=3,
    groups=4,
)

# Programs this small run once: compiling them is all that they cost.
compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def inputs(net, height=HEIGHT, width=WIDTH, tokens=TOKENS, batch=BATCH, seed=0):
    """Random pictures, times, contexts and what is added."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    time = jnp.asarray(rng.uniform(0, 999, batch), jnp.float32)
    added = None
    if net.addition is not None:
        added = Added(normal(batch, net.addition[1]), jnp.asarray(rng.integers(0, 1024, (batch, 6)), jnp.float32))
    return normal(batch, height, width, net.in_channels), time, normal(batch, tokens, net.context_width), added


@cache
def shapes(net):
    """Names, "/" between levels, with the shapes of all parameters."""
    tree = jax.eval_shape(net.init, jax.random.key(0), *jax.eval_shape(lambda: inputs(net, 8, 8)))["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(each.key for each in path): leaf.shape for path, leaf in leaves}


@cache
def small_params():
    return randomised(lambda key: SMALL.init(key, *inputs(SMALL)))


apply = compiled(SMALL.apply)


@pytest.mark.parametrize(
    ("net", "parameters", "tensors"),
    [
        (SD15, 859_520_964, 686),
        (SDXL, 2_567_463_684, 1680),
        (TINY_SD, 1_427_012, 304),
        (TINY_SDXL, 1_976_516, 428),
    ],
)
def test_parameters_are_as_many_as_published(net, parameters, tensors):
    sizes = [math.prod(shape) for shape in shapes(net).values()]
    assert (sum(sizes), len(sizes)) == (parameters, tensors)


def test_names_and_shapes_are_those_of_the_checkpoints():
    """Samples from the published files' lists: dots before numbers become "_", kernels have inputs before outputs."""
    found = shapes(SD15)
    block = "down_blocks_0/attentions_1/transformer_blocks_0/"
    for name, shape in {
        "conv_in/kernel": (3, 3, 4, 320),
        "time_embedding/linear_1/kernel": (320, 1280),
        "down_blocks_0/resnets_1/conv1/kernel": (3, 3, 320, 320),
        "down_blocks_1/resnets_0/conv_shortcut/kernel": (1, 1, 320, 640),
        "down_blocks_2/downsamplers_0/conv/bias": (1280,),
        "down_blocks_3/resnets_1/time_emb_proj/kernel": (1280, 1280),
        "down_blocks_0/attentions_1/proj_in/kernel": (1, 1, 320, 320),
        block + "attn1/to_q/kernel": (320, 320),
        block + "attn2/to_v/kernel": (768, 320),
        block + "attn2/to_out_0/bias": (320,),
        block + "norm3/scale": (320,),
        block + "ff/net_0/proj/kernel": (320, 2560),
        block + "ff/net_2/kernel": (1280, 320),
        "mid_block/attentions_0/transformer_blocks_0/norm1/bias": (1280,),
        "mid_block/resnets_1/norm2/scale": (1280,),
        "up_blocks_0/upsamplers_0/conv/kernel": (3, 3, 1280, 1280),
        "up_blocks_1/resnets_2/conv1/kernel": (3, 3, 1920, 1280),
        "up_blocks_3/attentions_2/norm/scale": (320,),
        "conv_norm_out/bias": (320,),
        "conv_out/kernel": (3, 3, 320, 4),
    }.items():
        assert found[name] == shape, name
    assert not any(name.startswith(("down_blocks_3/a", "up_blocks_0/a", "up_blocks_3/u", "add_")) for name in found)
    found = shapes(SDXL)
    assert found["down_blocks_2/attentions_1/transformer_blocks_9/attn2/to_k/kernel"] == (2048, 1280)
    assert found["mid_block/attentions_0/transformer_blocks_9/attn1/to_k/kernel"] == (1280, 1280)
    assert found["up_blocks_1/attentions_2/transformer_blocks_1/attn1/to_k/kernel"] == (640, 640)
    assert found["add_embedding/linear_1/kernel"] == (2816, 1280)
    assert found["mid_block/attentions_0/proj_in/kernel"] == (1280, 1280)
    joined = [found[f"up_blocks_{level}/resnets_{block}/norm1/scale"][0] for level in range(3) for block in range(3)]
    before = [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]
    assert [sum(pair) for pair in zip(before, [1280, 1280, 640, 640, 640, 320, 320, 320, 320], strict=True)] == joined


def test_parameters_start_as_pytorchs():
    picture = jnp.zeros((1, 2, 2, 9))
    params = compiled(layers.ResnetBlock(16, 1, "float32").init)(jax.random.key(0), picture, jnp.zeros((1, 25)))
    params = params["params"]
    for name, fan in (("conv1", 81), ("conv2", 144), ("conv_shortcut", 9), ("time_emb_proj", 25)):
        for leaf in params[name].values():
            assert 0.8 / math.sqrt(fan) < np.abs(leaf).max() <= 1 / math.sqrt(fan), name
    assert (params["norm2"]["scale"] == 1).all() and (params["norm2"]["bias"] == 0).all()


def test_times_sinusoids_are_cosines_then_sines():
    value = 321.5
    found = np.asarray(sinusoids(jnp.array([value]), 320))[0]
    angles = value * 10000.0 ** (-np.arange(160) / 160)
    np.testing.assert_allclose(found, np.concatenate([np.cos(angles), np.sin(angles)]), atol=2e-4)


# PyTorch's functions, in its layout: an implementation of every block that shares nothing with ours but the names.


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


class Reference:
    """The published forward pass, written with torch.nn.functional, reading parameters by their tree paths."""

    def __init__(self, torch, params):
        self.torch, self.f, self.params = torch, torch.nn.functional, params

    def get(self, path):
        leaf = self.params
        for name in path.split("/"):
            leaf = leaf[name]
        return self.torch.tensor(np.array(leaf))

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

    def transformer(self, path, x, context, heads, groups):
        batch, channels, height, width = x.shape
        h = self.group_norm(path + "norm", x, groups, 1e-6).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        h, layer = self.linear(path + "proj_in", h), 0
        while self.has(f"{path}transformer_blocks_{layer}"):
            block = f"{path}transformer_blocks_{layer}/"
            norm = self.layer_norm(block + "norm1", h)
            h = h + self.attention(block + "attn1/", norm, norm, heads)
            h = h + self.attention(block + "attn2/", self.layer_norm(block + "norm2", h), context, heads)
            h = h + self.feed_forward(block + "ff/", self.layer_norm(block + "norm3", h))
            layer += 1
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


def close(found, expected, tolerance):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() < tolerance * np.abs(expected).max()


def picture(x):
    """[B, C, H, W] to [B, H, W, C]."""
    return np.moveaxis(x.numpy(), 1, 3)


def test_every_block_is_the_formula(torch):
    rng = np.random.default_rng(1)
    x, time, context = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 4, 8), (2, 10), (2, 3, 5)))
    tokens = x.reshape(2, 24, 8)
    channels_first = torch.tensor(np.moveaxis(x, 3, 1) * 1.0)

    def both(block, call, *args):
        variables = randomised(lambda key: block.init(key, *args), 0.4)
        found = compiled(block.apply)(variables, *args)
        with torch.no_grad():
            close(found, call(Reference(torch, {"it": variables["params"]})), 2e-5)

    tensors = {"time": torch.tensor(time), "context": torch.tensor(context), "tokens": torch.tensor(tokens)}
    for outputs in (8, 12):
        block = layers.ResnetBlock(outputs, 4, "float32")
        both(block, lambda r: picture(r.resnet("it/", channels_first, tensors["time"], 4)), x, time)
    # Deviations as small as epsilon's root tell epsilons from one another.
    small = channels_first * 3e-3
    for epsilon in (1e-5, 1e-6):
        both(layers.GroupNorm(2, epsilon), lambda r, e=epsilon: picture(r.group_norm("it", small, 2, e)), x * 3e-3)
    attention = layers.Attention(2, "float32", "auto")
    both(attention, lambda r: r.attention("it/", tensors["tokens"], tensors["context"], 2).numpy(), tokens, context)
    both(attention, lambda r: r.attention("it/", tensors["tokens"], tensors["tokens"], 2).numpy(), tokens)
    both(layers.FeedForward("float32"), lambda r: r.feed_forward("it/", tensors["tokens"]).numpy(), tokens)
    for linear in (False, True):
        block = layers.SpatialTransformer(2, 2, 4, linear, "float32", "auto")
        both(block, lambda r: picture(r.transformer("it/", channels_first, tensors["context"], 2, 4)), x, context)
    down, up = layers.Downsample("float32"), layers.Upsample("float32")
    both(down, lambda r: picture(r.conv("it/conv", channels_first, 2)), x)
    both(up, lambda r: picture(r.conv("it/conv", channels_first.repeat_interleave(2, 2).repeat_interleave(2, 3))), x)


@pytest.mark.parametrize("net", [SMALL, TINY_SD, TINY_SDXL], ids=["three_levels", "sd", "sdxl"])
def test_the_whole_is_the_formula(net, torch):
    """Pictures that are not square, another time, context and addition for every example."""
    args = inputs(net)
    params = small_params() if net is SMALL else randomised(lambda key: net.init(key, *args), 0.1)
    found = apply(params, *args[:3]) if net is SMALL else compiled(net.apply)(params, *args)
    with torch.no_grad():
        close(found, Reference(torch, params["params"])(net, *args), 1e-4)


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(layers.gelu(jnp.asarray(x, jnp.float32)), exact, atol=2e-6)


def test_examples_do_not_mix():
    x, time, context, _ = inputs(SMALL)
    together = apply(small_params(), x, time, context)
    for changed in (
        (x.at[0].add(1), time, context),
        (x, time.at[0].add(0.5), context),
        (x, time, context.at[0].add(1)),
    ):
        moved = np.abs(apply(small_params(), *changed) - together).max((1, 2, 3))
        assert moved[0] > 1e-2 and moved[1] < 1e-4


def test_gradients_reach_picture_time_and_context():
    x, time, context, _ = inputs(SMALL)
    weight = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), jnp.float32)

    def loss(x, time, context):
        return jnp.sum(weight * SMALL.apply(small_params(), x, time, context))

    gradients = compiled(jax.grad(loss, argnums=(0, 1, 2)))(x, time, context)
    for gradient, at in zip(gradients, (x, time, context), strict=True):
        assert np.isfinite(gradient).all() and (np.abs(gradient).reshape(len(at), -1).max(1) > 1e-3).all()
    assert (np.abs(gradients[2]).max(-1) > 1e-4).all()


def test_low_precision_is_near():
    x, time, context, _ = inputs(SMALL)
    exact = apply(small_params(), x, time, context)
    low = compiled(SMALL.clone(dtype="bfloat16").apply)(small_params(), x, time, context)
    assert low.dtype == jnp.float32
    error = np.linalg.norm(low - exact) / np.linalg.norm(exact)
    assert 1e-5 < error < 0.05


def test_large_self_attention_goes_to_the_kernel(monkeypatch):
    asked = []

    def attend(query, key, value, *, causal, backend):
        asked.append((query.shape, key.shape[1], causal, backend))
        return query

    monkeypatch.setattr(layers, "attend", attend)
    for length, width, heads, context in (
        (1024, 128, 1, None),
        (1024, 160, 1, None),
        (1023, 128, 1, None),
        (1024, 8, 2, 4),
    ):
        args = [jax.ShapeDtypeStruct((1, length, width), jnp.float32)]
        args += [jax.ShapeDtypeStruct((1, context, 5), jnp.float32)] if context else []
        jax.eval_shape(layers.Attention(heads, "float32", "chosen").init, jax.random.key(0), *args)
    assert asked == [((1, 1024, 1, 128), 1024, False, "chosen")]


def counted(jaxpr):
    """Floating-point operations of the products and convolutions of a program."""
    total = 0
    for equation in jaxpr.eqns:
        (out,), shape = equation.outvars[:1], [each.aval.shape for each in equation.invars if hasattr(each, "aval")]
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            total += 2 * out.aval.size * math.prod(shape[0][axis] for axis in contracted)
        elif equation.primitive.name == "conv_general_dilated":
            total += 2 * out.aval.size * math.prod(shape[1][:3])
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            total += counted(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize("net", [SMALL, TINY_SD, TINY_SDXL], ids=["three_levels", "sd", "sdxl"])
def test_operations_are_those_of_the_program(net):
    args = jax.eval_shape(lambda: inputs(net, 8, 16, 7, batch=1))
    params = jax.eval_shape(net.init, jax.random.key(0), *args)
    assert unet.flops_per_example(net, 8, 16, 7) == counted(jax.make_jaxpr(net.apply)(params, *args).jaxpr)


def test_operations_of_the_published_networks():
    assert unet.flops_per_example(SD15, 64, 64, 77) == pytest.approx(803.3e9, rel=1e-3)
    assert unet.flops_per_example(SDXL, 128, 128, 77) == pytest.approx(6.761e12, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, r"unet\.groups: 3 do not divide 8"),
        ({"heads": (1, 5, 2)}, r"unet\.heads: 5 do not divide 12"),
        ({"heads": (1, 3)}, r"unet\.heads: .* 3 levels"),
        ({"transformer_layers": (0, 1, 1, 1)}, r"unet\.transformer_layers: .* 3 levels"),
        ({"in_channels": 4}, r"unet\.in_channels: the picture has 3"),
        ({"context_width": 6}, r"unet\.context_width: the context has 5"),
        ({"addition": (8, 4)}, r"unet\.addition: is \(8, 4\), but what is added is not given"),
    ],
)
def test_bad_sizes_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        SMALL.clone(**change).init(jax.random.key(0), *inputs(SMALL))


def test_pictures_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match=r"unet\.channels: 3 levels halve 8 x 6"):
        SMALL.init(jax.random.key(0), *inputs(SMALL, 8, 6))
    with pytest.raises(ValueError, match=r"unet\.addition: is None, but what is added is given"):
        SMALL.init(jax.random.key(0), *inputs(SMALL)[:3], Added(jnp.zeros((BATCH, 4)), jnp.zeros((BATCH, 6))))
