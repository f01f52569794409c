"""The autoencoder of Stable Diffusion: published counts, numbers of diffusers, and memory of attention and decoding."""

import math
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention import plain
from diffusion.nets.sd import vae
from diffusion.nets.sd.layers import GroupNorm
from diffusion.nets.sd.vae import SD_VAE, SDXL_VAE, TINY_VAE, AutoencoderKL, attend_in_blocks, decode_in_chunks
from diffusion.train.flops import count
from tests.checkpoints import named_tensors, relative
from tests.checks import refused
from tests.weights import randomized


def normal(*shape, seed=0, scale=1.0):
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, shape), jnp.float32)


IMAGES, LATENTS = normal(2, 12, 8, 3, scale=0.5), normal(3, 4, 6, 4, seed=1)


@cache
def params(scale=0.2):
    return randomized(lambda key: TINY_VAE.init(key, IMAGES), scale)


encode, decode = (jax.jit(lambda *args, m=method: TINY_VAE.apply(*args, method=m)) for method in ("encode", "decode"))


def test_parameters_are_the_published_ones():
    tree = jax.eval_shape(SD_VAE.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)]
    assert (sum(sizes), len(sizes)) == (83_653_863, 248)
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["params"])
    }
    for name, shape in {
        "encoder/down_blocks_1/resnets_0/conv_shortcut/kernel": (1, 1, 128, 256),
        "encoder/down_blocks_2/downsamplers_0/conv/kernel": (3, 3, 512, 512),
        "encoder/mid_block/attentions_0/group_norm/scale": (512,),
        "decoder/mid_block/attentions_0/to_q/bias": (512,),
        "decoder/mid_block/attentions_0/to_out_0/kernel": (512, 512),
        "decoder/up_blocks_3/resnets_2/norm2/bias": (128,),
        "decoder/conv_out/kernel": (3, 3, 128, 3),
        "encoder/conv_out/kernel": (3, 3, 512, 8),
        "quant_conv/kernel": (1, 1, 8, 8),
        "post_quant_conv/bias": (4,),
    }.items():
        assert shapes[name] == shape, name
    assert (SD_VAE.scale, SDXL_VAE.scale, SDXL_VAE.dtype) == (0.18215, 0.13025, "float32")


@pytest.mark.parametrize("scale", [0.2, 0.02])
def test_encoder_and_decoder_agree_with_diffusers(scale):
    """With small weights the epsilon of every norm counts, with large ones attention is not uniform."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.AutoencoderKL(
        block_out_channels=TINY_VAE.channels,
        layers_per_block=TINY_VAE.layers,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in named_tensors(params(scale)).items()})

    assert {each.eps for each in model.modules() if isinstance(each, torch.nn.GroupNorm)} == {1e-6}

    def channels_first(x):
        return torch.tensor(np.moveaxis(np.array(x), 3, 1))

    def channels_last(x):
        return np.moveaxis(x.numpy(), 1, 3)

    with torch.no_grad():
        posterior = model.encode(channels_first(IMAGES)).latent_dist
        images = model.decode(channels_first(LATENTS) / TINY_VAE.scale).sample
    mean, log_variance = encode(params(scale), IMAGES)
    assert relative(mean, channels_last(posterior.mean)) < 1e-5
    assert relative(log_variance, channels_last(posterior.logvar)) < 1e-5
    assert relative(decode(params(scale), LATENTS), channels_last(images)) < 1e-5


def test_epsilon_of_all_norms():
    """That of the attention's norm changes its outputs too little for the comparison above."""
    found, weights = [], params()

    def record(call, args, kwargs, context):
        if isinstance(context.module, GroupNorm):
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(TINY_VAE.apply, weights, IMAGES)
    assert (len(found), set(found)) == (32, {1e-6})


# Outputs of diffusers 0.42.1 on these parameters and inputs, from the test above.
MEAN = [3.8100967, 5.0322423, -2.5642781, -2.3585360]
LOG_VARIANCE = [-2.4993169, -0.9778782, -2.7116098, -1.8897494]
DECODED = [
    [-0.1666381, 0.1398771, 0.0188529],
    [-1.3991774, -0.8345673, 0.7882069],
    [-0.4330662, -1.5794154, 1.7657206],
]


def test_recorded_numbers_of_diffusers():
    mean, log_variance = encode(params(), IMAGES)
    for result, expected in ((mean[1, 3, 2], MEAN), (log_variance[0, 5, 0], LOG_VARIANCE)):
        np.testing.assert_allclose(result, expected, rtol=0, atol=5e-5)
    np.testing.assert_allclose(decode(params(), LATENTS)[:, 7, 10], DECODED, rtol=0, atol=5e-5)


def test_attention_in_blocks_of_queries_is_exact():
    query, key, value, weight = (normal(2, length, 1, 8, seed=length) for length in (10, 11, 11, 10))

    def gradient(attend):
        return jax.jit(jax.value_and_grad(lambda *args: jnp.sum(weight * attend(*args)), argnums=(0, 1, 2)))

    expected = gradient(plain)(query, key, value)
    actual = gradient(lambda *args: attend_in_blocks(*args, 4))(query, key, value)
    for found, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def largest(function, *args):
    """Return the number of values of the largest array of a program, except its results."""

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
            for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    yield from sizes(inner)

    return max(sizes(jax.make_jaxpr(function)(*args).jaxpr))


def test_attention_matrices_of_large_images_are_not_whole():
    """1024 pixels are 128 x 128 tokens, whose attention matrix would be 1 GiB an image."""
    net = vae.SpatialAttention(4, "float32")
    for side, whole in ((64, True), (128, False)):
        x = jax.ShapeDtypeStruct((1, side, side, 8), jnp.float32)
        variables = jax.eval_shape(net.init, jax.random.key(0), x)
        for function in (net.apply, jax.grad(lambda *args: net.apply(*args).sum(), argnums=1)):
            assert largest(function, variables, x) == side**2 * (side**2 if whole else vae.QUERY_BLOCK)


def test_decoding_in_chunks_has_the_memory_of_one():
    expected = decode(params(), LATENTS)
    result = jax.jit(lambda *args: decode_in_chunks(TINY_VAE, *args, 2))(params(), LATENTS)
    assert relative(result, expected) < 1e-5
    many = jax.ShapeDtypeStruct((64, 4, 6, 4), jnp.float32)
    one, two = (largest(lambda x, c=c: decode_in_chunks(TINY_VAE, params(), x, c), many) for c in (8, 16))
    assert two == 2 * one
    few = jax.ShapeDtypeStruct((4, 4, 6, 4), jnp.float32)
    whole, parts = (count(lambda x, c=c: decode_in_chunks(TINY_VAE, params(), x, c), few) for c in (8, 2))
    assert whole == parts, "no more images are decoded than there are"
    with refused("0 images at a time"):
        decode_in_chunks(TINY_VAE, params(), LATENTS, 0)


def test_half_precision_weights_and_products():
    expected = decode(params(), LATENTS)
    result = decode(jax.tree.map(lambda leaf: leaf.astype("float16"), params()), LATENTS)
    assert result.dtype == jnp.float32 and 1e-5 < relative(result, expected) < 0.05
    low = jax.jit(lambda *args: TINY_VAE.clone(dtype="bfloat16").apply(*args, method="decode"))(params(), LATENTS)
    assert low.dtype == jnp.float32 and 1e-4 < relative(low, expected) < 0.1


def test_bad_sizes_name_the_field():
    for net, method, shape, message in (
        (AutoencoderKL(channels=(32, 48)), "encode", (1, 4, 4, 3), r"vae\.groups: 32 do not divide 48"),
        (TINY_VAE, "encode", (1, 5, 4, 3), "image: 5 x 4 pixels; use multiples of 2"),
        (TINY_VAE, "decode", (1, 4, 4, 3), r"vae\.latent_channels: the latents have 3, not 4"),
    ):
        with refused(message):
            net.apply(params(), jnp.zeros(shape), method=method)
