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
from tests.checks import refused
from tests.data.files import fields

NET = Classifier((8, 8, 1), values=16, labels=4, channels=(4, 8), hidden=8)
ROWS = 64  # of every batch
OBJECTIVE = Classification(
    lambda params, noisy, time, cond=None, memory=None, *, keys=None: NET.apply({"params": params}, noisy, keys=keys)
)


@pytest.fixture(scope="module")
def source():
    return SOURCES["blobs"](DataSettings(source="blobs", vocab_size=16))


@pytest.fixture(scope="module")
def batches(source):
    """Return all batches of the training split."""
    (block,) = source.splits["train"]()
    tokens, labels = block["tokens"].astype(np.int32).reshape(-1, ROWS, 64), block["label"].reshape(-1, ROWS)
    weights = np.ones((ROWS, 64), np.float32)
    return [{"tokens": rows, "label": one, "weights": weights} for rows, one in zip(tokens, labels, strict=True)]


@pytest.fixture(scope="module")
def params():
    return jax.jit(NET.init)(jax.random.key(0), jnp.zeros((1, 64), jnp.int32))["params"]


def test_short_training_separates_the_quarters(batches, params):
    optimizer, root = optax.adam(3e-3), jax.random.key(1)

    @jax.jit
    def step(params, state, batch, number):
        gradient = jax.grad(OBJECTIVE, has_aux=True)(params, batch, draws(root, "train", number, ROWS))[0]
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state, trained = optimizer.init(params), params
    for number in range(60):
        trained, state = step(trained, state, batches[number % 16], number)
    evaluate = jax.jit(lambda batch: OBJECTIVE(trained, batch, draws(root, "validation", 0, ROWS), train=False)[1])
    accuracies = [evaluate(batch)["accuracy"] for batch in batches[-8:]]
    hits, counts = np.sum(accuracies, axis=0)
    assert counts == 512 and hits / counts > 0.9 > 2 * np.mean(batches[0]["label"] == 0)


def test_filler_rows_do_not_count_and_dropout_depends_on_the_key_of_the_example(batches, params):
    noise, filler = draws(jax.random.key(2), "x", 0, ROWS), np.arange(ROWS) >= 3
    batch = batches[0] | {"weights": np.where(filler[:, None], 0, batches[0]["weights"]).astype(np.float32)}

    @jax.jit
    def totals(batch, noise):
        features = NET.apply({"params": params}, batch["tokens"], method="features")
        logits = NET.apply({"params": params}, batch["tokens"])
        again = NET.apply({"params": params}, features, method="classify")
        return OBJECTIVE(params, batch, noise), OBJECTIVE(params, batch, noise, train=False)[0], logits, again

    (total, metrics), without, logits, again = totals(batch, noise)
    assert metrics["loss"][1] == metrics["accuracy"][1] == 3
    assert abs(float(total - without)) > 1e-3
    # Other tokens in the filler rows and another order of the examples give the same total.
    other = batch | {"tokens": np.where(filler[:, None], 0, batch["tokens"])}
    order = np.array([1, 2, 0, *range(3, ROWS)])
    moved = jax.tree.map(lambda values: values[order], (other, noise))
    np.testing.assert_allclose(totals(*moved)[0][0], total, rtol=1e-5)
    logits = np.asarray(logits, np.float64)
    np.testing.assert_allclose(again, logits, atol=1e-5)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(ROWS), batch["label"]]
    np.testing.assert_allclose(without, expected[:3].sum(), rtol=1e-5)
    with refused(r"objective\.name: classification needs a source with labels"):
        OBJECTIVE(params, {name: batch[name] for name in ("tokens", "weights")}, noise)


@pytest.mark.parametrize(
    "process",
    [MaskedDiffusion(16, Polynomial(3.0)), PartialMaskedDiffusion(SubtokenCodec(16, 2), Polynomial(3.0))],
    ids=["tokens", "sub-tokens"],
)
def test_the_image_loss_counts_every_pixel_once_whatever_is_masked(process):
    seen = []

    def fixed(params, noisy, time, cond=None, memory=None, *, keys=None):
        seen.append((np.asarray(noisy), np.asarray(time), keys))
        return params

    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(3, 5, 17)), rng.integers(0, 16, (3, 5))
    weights = np.ones((3, 5), np.float32)
    weights[2] = 0
    noise = draws(jax.random.key(0), "x", 0, 3)
    batch = {"tokens": jnp.asarray(tokens), "weights": weights}
    total, metrics = CrossEntropy(fixed, process)(jnp.asarray(logits), batch, noise)
    log_probs = logits[..., :16] - np.log(np.exp(logits[..., :16]).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_probs, tokens[..., None], -1)[..., 0]
    np.testing.assert_allclose(total, expected[:2].sum(), rtol=1e-5)
    assert metrics["loss"][1] == 10
    noisy, time, keys = seen[0]
    np.testing.assert_array_equal(time, noise.uniform)
    clean = np.asarray(process.encode(batch["tokens"]))
    assert keys is not None and noisy.shape == clean.shape
    assert ((noisy == clean) | (noisy == process.mask_id)).all() and (noisy == process.mask_id).any()


def test_shapes_and_labels_that_networks_are_built_from_are_those_of_the_sources(source):
    assert (source.image, source.labels) == (SHAPES["blobs"], LABELS["blobs"])
    with refused(r"data\.source: 'density2d' holds no images; known: image_files, mnist"):
        image_shape(fields("density2d"))
    with refused(r"data\.source: 'imagenet32' has no labels"):
        label_count(fields("imagenet32"))
