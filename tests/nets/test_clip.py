"""Encoders of CLIP: sizes, recorded outputs of transformers, and what outputs must not depend on."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd import clip
from tests.checks import refused
from tests.weights import randomized

RECORDED = {
    "quick_gelu": [
        [-0.084705, -0.338789, -1.538060, 0.873998],
        [1.695206, 0.364587, -1.564877, 3.328226],
        [-0.186959, -1.781448, -0.067864, 1.782865],
        [0.691067, 1.260578, 1.581808, 0.706809],
    ],
    "gelu": [
        [-0.089282, -0.340113, -1.529544, 0.861215],
        [1.707840, 0.355017, -1.574995, 3.331524],
        [-0.184421, -1.777134, -0.086462, 1.759898],
        [0.695870, 1.256818, 1.572396, 0.713875],
    ],
}
SCORES = [-0.2630991, -0.4448242]
IDS = np.random.default_rng(0).integers(1, 98, (2, 11)).astype(np.int32)
IDS[0, 6:], IDS[1, 10:] = 98, 98  # the end of the text, and padding
PIXELS = np.random.default_rng(1).normal(size=(2, 24, 24, 3)).astype(np.float32)
INPUTS = (jnp.asarray(PIXELS), jnp.asarray(IDS))


@functools.cache
def params():
    return randomized(lambda key: clip.TINY_CLIP.init(key, *INPUTS))["params"]


@functools.cache
def compiled(net, dtype="float32"):
    return jax.jit(net.clone(dtype=dtype).apply)


def encoded(ids, activation="quick_gelu", **changes):
    net = clip.TINY_TEXT.clone(activation=activation, **changes)
    return compiled(net)({"params": params()["text_model"]}, jnp.asarray(ids))


def sizes(net, *inputs):
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def test_published_encoders_have_their_numbers_of_parameters():
    ids, pixels = jnp.zeros((1, 77), jnp.int32), jnp.zeros((1, 224, 224, 3))
    assert sizes(clip.CLIP_L_TEXT, ids) == 123_060_480
    assert sizes(clip.BIGG_TEXT, ids) == 694_659_840
    # The published 427,616,513 and 986,109,441 count the scale of the loss.
    assert sizes(clip.CLIP_L, pixels, ids) == 427_616_512
    assert sizes(clip.CLIP_H, pixels, ids) == 986_109_440


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_outputs_are_those_recorded_from_transformers(activation):
    """Of version 5.24 in float32, with these parameters."""
    texts = encoded(IDS, activation)
    net = clip.TINY_VISION.clone(activation=activation)
    features = compiled(net)({"params": params()["vision_model"]}, INPUTS[0])
    result = np.stack([texts.hidden[1, 4, :4], texts.penultimate[0, 2, :4], texts.pooled[0, :4], features[1, :4]])
    np.testing.assert_allclose(result, RECORDED[activation], rtol=1e-4, atol=1e-5)


def test_scores_are_those_recorded_from_transformers():
    score = jax.jit(clip.TINY_CLIP.apply)
    np.testing.assert_allclose(score({"params": params()}, *INPUTS), SCORES, rtol=1e-4)


def test_positions_read_no_later_token():
    changed = IDS.copy()
    changed[:, 5:] = 98
    before, after = encoded(IDS), encoded(changed)
    np.testing.assert_allclose(before.hidden[:, :5], after.hidden[:, :5], atol=1e-5)
    assert np.abs(before.hidden[1, 6:] - after.hidden[1, 6:]).max() > 0.1
    # The first text ends before its padding, of which the pooled vector is then independent.
    other = IDS.copy()
    other[0, 7:] = 0
    np.testing.assert_allclose(before.pooled, encoded(other).pooled, atol=1e-5)


def test_without_a_projection_the_pooled_vector_is_a_hidden_state():
    texts = encoded(IDS, projection=None)
    np.testing.assert_allclose(texts.pooled, np.stack([texts.hidden[0, 6], texts.hidden[1, 10]]), atol=1e-5)


def test_shorter_texts_and_longer_ones():
    np.testing.assert_allclose(encoded(IDS[:, :7]).hidden, encoded(IDS).hidden[:, :7], rtol=1e-4, atol=1e-5)
    with refused("clip.length: 12 tokens exceed the encoder's 11"):
        encoded(np.zeros((1, 12), np.int32))


def test_features_have_unit_norm_and_scores_are_their_products():
    net, variables = clip.TINY_CLIP, {"params": params()}
    images = net.apply(variables, INPUTS[0], method="image_features")
    texts = net.apply(variables, INPUTS[1], method="text_features")
    np.testing.assert_allclose(jnp.linalg.norm(images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(texts, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(net.apply(variables, *INPUTS), np.diag(images @ texts.T), rtol=1e-4)


def test_16_bits_stay_near_32_and_attention_kernels_agree():
    variables = {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params()["vision_model"])}
    exact = compiled(clip.TINY_VISION)({"params": params()["vision_model"]}, INPUTS[0])
    rough = compiled(clip.TINY_VISION, "bfloat16")(variables, INPUTS[0])
    assert rough.dtype == jnp.float32
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.05
    np.testing.assert_allclose(encoded(IDS, attention="xla").hidden, encoded(IDS).hidden, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_score_reaches_the_image():
    def score(pixels):
        return clip.TINY_CLIP.apply({"params": params()}, pixels, INPUTS[1]).sum()

    direction = jnp.asarray(np.random.default_rng(2).normal(size=PIXELS.shape).astype(np.float32))
    value_and_slope = jax.jit(lambda pixels: jax.jvp(score, (pixels,), (direction,)))
    _, slope = value_and_slope(INPUTS[0])
    gradient = jax.jit(jax.grad(score))(INPUTS[0])
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-3)
    step = 1e-3
    ahead, behind = (value_and_slope(INPUTS[0] + sign * step * direction)[0] for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / (2 * step), slope, rtol=2e-2)


def test_wrong_sizes_are_refused():
    with refused("clip.image: images have 24 x 16 pixels, the encoder 24; preprocess them"):
        clip.TINY_VISION.init(jax.random.key(0), INPUTS[0][:, :, :16])
    with refused("clip.patch: patches of 7 pixels do not divide images of 24"):
        clip.TINY_VISION.clone(patch=7).init(jax.random.key(0), INPUTS[0])
    with refused("clip.heads: 5 do not divide the width 32"):
        clip.TINY_TEXT.clone(heads=5).init(jax.random.key(0), INPUTS[1])
