"""The classifier and the two objectives of images: sums, and the filler rows of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.data.arrays import LABELS, SHAPES, SOURCES, image_shape, label_count
from diffusion.data.settings import DataSettings
from diffusion.nets.classifier import Classifier
from diffusion.objectives.cross_entropy import CrossEntropy
from diffusion.objectives.supervised import Classification
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules.masking import Polynomial

NET = Classifier((8, 8, 1), values=16, labels=4, channels=(4, 8), hidden=8)


def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    return NET.apply({"params": params}, noisy, keys=keys)


@pytest.fixture(scope="module")
def data():
    source = SOURCES["blobs"](DataSettings(source="blobs", vocab_size=16))
    (block,) = source.splits["train"]()
    return block["tokens"].astype(np.int32), block["label"]


@pytest.fixture(scope="module")
def params():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 64), jnp.int32))["params"]


def test_short_training_separates_the_quarters(data, params):
    tokens, labels = data
    objective, optimizer, root = Classification(denoiser), optax.adam(3e-3), jax.random.key(1)

    @jax.jit
    def step(params, state, batch, number):
        noise = draws(root, "train", number, 64)
        grads, _ = jax.grad(lambda p: (lambda total, m: (total / 64, m))(*objective(p, batch, noise)), has_aux=True)(
            params
        )
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    state, trained = optimizer.init(params), params
    for number in range(60):
        rows = slice(64 * (number % 16), 64 * (number % 16) + 64)
        batch = {"tokens": tokens[rows], "label": labels[rows], "weights": np.ones((64, 64), np.float32)}
        trained, state = step(trained, state, batch, number)
    held_out = {"tokens": tokens[-512:], "label": labels[-512:], "weights": np.ones((512, 64), np.float32)}
    _, metrics = objective(trained, held_out, draws(root, "validation", 0, 512), train=False)
    hits, count = metrics["accuracy"]
    assert count == 512 and hits / count > 0.9 > 2 * np.mean(labels == 0)


def test_filler_rows_do_not_count_and_dropout_depends_on_the_key_of_the_example(data, params):
    tokens, labels = data
    objective, noise = Classification(denoiser), draws(jax.random.key(2), "x", 0, 4)
    weights = np.ones((4, 64), np.float32)
    weights[3] = 0
    batch = {"tokens": tokens[:4], "label": labels[:4], "weights": weights}
    total, metrics = objective(params, batch, noise)
    assert metrics["loss"][1] == metrics["accuracy"][1] == 3

    def alone(row):
        one = slice(row, row + 1)
        part = {name: values[one] for name, values in batch.items()}
        return objective(params, part, jax.tree.map(lambda values: values[one], noise))[0]

    np.testing.assert_allclose(total, sum(alone(row) for row in range(3)), rtol=1e-5)
    without, _ = objective(params, batch, noise, train=False)
    assert abs(float(total - without)) > 1e-3
    logits = np.asarray(NET.apply({"params": params}, tokens[:3]), np.float64)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels[:3]]
    np.testing.assert_allclose(without, expected.sum(), rtol=1e-5)
    with pytest.raises(ValueError, match=r"objective\.name: classification needs a source with labels"):
        objective(params, {"tokens": tokens[:4], "weights": weights}, noise)


def test_logits_are_those_of_the_features(data, params):
    tokens, _ = data
    features = NET.apply({"params": params}, tokens[:4], method="features")
    assert features.shape == (4, 8) and features.dtype == jnp.float32
    np.testing.assert_allclose(
        NET.apply({"params": params}, features, method="classify"), NET.apply({"params": params}, tokens[:4]), atol=1e-5
    )


@pytest.mark.parametrize("digits", [1, 2])
def test_the_image_loss_counts_every_pixel_once_whatever_is_masked(digits):
    process = (
        MaskedDiffusion(16, Polynomial(3.0))
        if digits == 1
        else PartialMaskedDiffusion(SubtokenCodec(16, digits), Polynomial(3.0))
    )
    seen = []

    def fixed(params, noisy, time, cond=None, memory=None, *, keys=None):
        seen.append((np.asarray(noisy), np.asarray(time), keys))
        return params

    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(3, 5, 17)), rng.integers(0, 16, (3, 5))
    weights = np.ones((3, 5), np.float32)
    weights[2] = 0
    noise = draws(jax.random.key(0), "x", 0, 3)
    objective = CrossEntropy(fixed, process)
    total, metrics = objective(jnp.asarray(logits), {"tokens": jnp.asarray(tokens), "weights": weights}, noise)
    log_probs = logits[..., :16] - np.log(np.exp(logits[..., :16]).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_probs, tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(total, expected[:2].sum(), rtol=1e-5)
    assert metrics["loss"][1] == 10
    noisy, time, keys = seen[0]
    np.testing.assert_array_equal(time, noise.uniform)
    assert keys is not None and noisy.shape == (3, 5 * digits)
    clean = np.asarray(process.encode(jnp.asarray(tokens)))
    assert ((noisy == clean) | (noisy == process.mask_id)).all() and (noisy == process.mask_id).any()


def test_shapes_and_labels_that_networks_are_built_from_are_those_of_the_sources():
    source = SOURCES["blobs"](DataSettings(source="blobs", vocab_size=16))
    assert (source.image, source.labels) == (SHAPES["blobs"], LABELS["blobs"])
    with pytest.raises(ValueError, match=r"data\.source: 'density2d' holds no images; known: mnist"):
        image_shape("density2d")
    with pytest.raises(ValueError, match=r"data\.source: 'imagenet32' has no labels"):
        label_count("imagenet32")
