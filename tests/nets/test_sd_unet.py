"""The U-Nets of Stable Diffusion: published counts, names and operations, gradients, and invalid sizes."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd import layers
from diffusion.nets.sd.unet import SD15, SDXL, TINY_SD, TINY_SDXL
from tests.checks import refused
from tests.small_unets import SMALL, apply, inputs, small_params
from tests.weights import randomized


@cache
def shapes(net):
    """Return the shapes of all parameters by name, with "/" between levels."""
    tree = jax.eval_shape(net.init, jax.random.key(0), *jax.eval_shape(lambda: inputs(net, 8, 8)))["params"]
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(each.key for each in path): leaf.shape for path, leaf in leaves}


@pytest.mark.parametrize(
    ("net", "parameters", "tensors"),
    [
        (SD15, 859_520_964, 686),
        (SDXL, 2_567_463_684, 1680),
        (TINY_SD, 1_427_012, 304),
        (TINY_SDXL, 1_976_516, 428),
    ],
)
def test_parameter_counts_are_the_published_ones(net, parameters, tensors):
    """Several transformer blocks are stacked, so that one leaf holds a tensor for each."""
    found = shapes(net)
    stacks = [shape[0] if "/transformer_blocks/" in name else 1 for name, shape in found.items()]
    assert (sum(map(math.prod, found.values())), sum(stacks)) == (parameters, tensors)


def test_names_and_shapes_are_those_of_the_checkpoints():
    """Examples from the published files; "_" is a dot before a number, and kernels have inputs before outputs."""
    result = shapes(SD15)
    block = "down_blocks_0/attentions_1/transformer_blocks_0/"
    for name, shape in {
        "time_embedding/linear_1/kernel": (320, 1280),
        "down_blocks_1/resnets_0/conv_shortcut/kernel": (1, 1, 320, 640),
        "down_blocks_2/downsamplers_0/conv/bias": (1280,),
        "down_blocks_3/resnets_1/time_emb_proj/kernel": (1280, 1280),
        "down_blocks_0/attentions_1/proj_in/kernel": (1, 1, 320, 320),
        block + "attn2/to_v/kernel": (768, 320),
        block + "attn2/to_out_0/bias": (320,),
        block + "norm3/scale": (320,),
        block + "ff/net_0/proj/kernel": (320, 2560),
        "mid_block/resnets_1/norm2/scale": (1280,),
        "up_blocks_0/upsamplers_0/conv/kernel": (3, 3, 1280, 1280),
        "up_blocks_1/resnets_2/conv1/kernel": (3, 3, 1920, 1280),
        "conv_norm_out/bias": (320,),
    }.items():
        assert result[name] == shape, name
    assert not any(name.startswith(("down_blocks_3/a", "up_blocks_0/a", "up_blocks_3/u", "add_")) for name in result)
    result = shapes(SDXL)
    assert result["down_blocks_2/attentions_1/transformer_blocks/attn2/to_k/kernel"] == (10, 2048, 1280)
    assert result["mid_block/attentions_0/transformer_blocks/attn1/to_k/kernel"] == (10, 1280, 1280)
    assert result["up_blocks_1/attentions_2/transformer_blocks/attn1/to_k/kernel"] == (2, 640, 640)
    assert result["add_embedding/linear_1/kernel"] == (2816, 1280)
    assert result["mid_block/attentions_0/proj_in/kernel"] == (1280, 1280)
    joined = [result[f"up_blocks_{level}/resnets_{block}/norm1/scale"][0] for level in range(3) for block in range(3)]
    before = [1280, 1280, 1280, 1280, 640, 640, 640, 320, 320]
    assert [sum(pair) for pair in zip(before, [1280, 1280, 640, 640, 640, 320, 320, 320, 320], strict=True)] == joined


def test_initialization_is_that_of_pytorch():
    image = jnp.zeros((1, 2, 2, 9))
    block = layers.ResnetBlock(16, 1, "float32")
    params = jax.jit(block.init)(jax.random.key(0), image, jnp.zeros((1, 25)))["params"]
    for name, fan in (("conv1", 81), ("conv2", 144), ("conv_shortcut", 9), ("time_emb_proj", 25)):
        for leaf in params[name].values():
            assert 0.8 / math.sqrt(fan) < np.abs(leaf).max() <= 1 / math.sqrt(fan), name
    assert (params["norm2"]["scale"] == 1).all() and (params["norm2"]["bias"] == 0).all()


def test_gelu_is_exact():
    x = np.linspace(-6, 6, 101)
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(layers.gelu(jnp.asarray(x, jnp.float32)), exact, atol=2e-6)


def test_examples_do_not_mix():
    arrays, together = inputs(SMALL)[:3], apply(small_params(), *inputs(SMALL)[:3])
    for index in range(3):
        changed = [array.at[0].add(0.5) if place == index else array for place, array in enumerate(arrays)]
        moved = np.abs(apply(small_params(), *changed) - together).max((1, 2, 3))
        assert moved[0] > 1e-2 and moved[1] < 1e-4


def test_gradients_reach_image_time_and_context():
    x, time, context, _ = inputs(SMALL)
    weight = jnp.asarray(np.random.default_rng(3).normal(size=x.shape), jnp.float32)

    def loss(x, time, context):
        return jnp.sum(weight * SMALL.apply(small_params(), x, time, context))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(x, time, context)
    for gradient, at in zip(gradients, (x, time, context), strict=True):
        assert np.isfinite(gradient).all() and (np.abs(gradient).reshape(len(at), -1).max(1) > 1e-3).all()
    assert (np.abs(gradients[2]).max(-1) > 1e-4).all()


def test_rematerialization_is_of_every_block():
    fields = dict(channels=(8,), heads=(2,), transformer_layers=(2,), middle_layers=1, layers=1, groups=4)
    net = TINY_SDXL.clone(**fields, context_width=5, time_width=6, addition=None)
    args = inputs(net, 2, 4, batch=1)[:3]
    params = jax.eval_shape(net.init, jax.random.key(0), *args)

    def loss(params, remat):
        return jnp.sum(net.clone(remat=remat).apply(params, *args) ** 2)

    # Five residual blocks, the transformer block of the middle, and three loops over two transformer blocks.
    traces = [str(jax.make_jaxpr(lambda params, r=r: jax.grad(loss)(params, r))(params)) for r in ("none", "full")]
    assert [trace.count("prevent_cse=") for trace in traces] == [0, 9]
    with refused(r"net\.remat: unknown policy 'some'"):
        jax.eval_shape(net.clone(remat="some").init, jax.random.key(0), *args)


def test_low_precision_is_close_to_float32():
    net = SMALL.clone(channels=(8,), transformer_layers=(1,), heads=(2,))
    params = randomized(lambda key: net.init(key, *inputs(net)))
    low, exact = (jax.jit(each.apply)(params, *inputs(net)) for each in (net.clone(dtype="bfloat16"), net))
    assert low.dtype == jnp.float32
    assert 1e-5 < np.linalg.norm(low - exact) / np.linalg.norm(exact) < 0.05


def test_large_self_attention_goes_to_the_kernel(monkeypatch):
    calls = []

    def attend(query, key, value, *, backend):
        calls.append((query.shape, key.shape[1], backend))
        return query

    monkeypatch.setattr(layers, "attend", attend)
    cases = (1024, 128, 1, None), (1024, 160, 1, None), (1023, 128, 1, None), (1024, 8, 2, 4)
    for length, width, heads, context in cases:
        args = [jax.ShapeDtypeStruct((1, length, width), jnp.float32)]
        args += [jax.ShapeDtypeStruct((1, context, 5), jnp.float32)] if context else []
        jax.eval_shape(layers.Attention(heads, "float32", "chosen").init, jax.random.key(0), *args)
    assert calls == [((1, 1024, 1, 128), 1024, "chosen")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 3}, r"unet\.groups: 3 do not divide 8"),
        ({"heads": (1, 5, 2)}, r"unet\.heads: 5 do not divide 12"),
        ({"heads": (1, 3)}, r"unet\.heads: .* 3 levels"),
        ({"in_channels": 4}, r"unet\.in_channels: the image has 3"),
        ({"context_width": 6}, r"unet\.context_width: the context has 5"),
        ({"addition": (8, 4)}, r"unet\.addition: is \(8, 4\), but an added conditioning is not passed"),
        ({"channels": (8,) * 4, "heads": (1,) * 4, "transformer_layers": (0,) * 4}, r"channels: 4 levels halve 8 x 4"),
    ],
)
def test_bad_sizes_name_the_field(change, message):
    with refused(message):
        SMALL.clone(**change).init(jax.random.key(0), *inputs(SMALL))
