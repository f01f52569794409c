"""The objective of the error predictor: worked losses, tokens that count, gradients, and a toy example of learning."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.objectives.error_prediction import balanced_binary_cross_entropy, binary_cross_entropy, rank_loss
from diffusion.sampling.masked.draw import Draw
from diffusion.train.step import gradients
from tests.checks import refused
from tests.objectives.error_examples import (
    BATCH,
    BATCHES,
    LENGTH,
    NOISE,
    PARAMS,
    PRIME,
    PROCESS,
    TOKENS,
    VOCAB,
    WEIGHTS,
    always,
    objective,
)
from tests.weights import random_like

# Losses.

LOGITS, WRONG, ONES = np.array([[1.0, 0, -1, 2]]), np.array([[1.0, 0, 0, 1]]), np.ones((1, 4))


@partial(jax.jit, static_argnums=0)
def run(loss, *arrays):
    """The sum, the count, and the gradient of the sum."""
    logits, labels, weights = (array.astype(jnp.float32) for array in arrays)
    return loss(logits, labels, weights), jax.grad(lambda e: loss(e, labels, weights)[0])(logits)


def mean(pair):
    return pair[0] / pair[1]


def test_worked_losses():
    assert mean(run(rank_loss, LOGITS, WRONG, ONES)[0]) == pytest.approx(0.153926, abs=1e-6)
    assert mean(run(binary_cross_entropy, LOGITS, WRONG, ONES)[0]) == pytest.approx(0.361650, abs=1e-6)
    # At logit 0 the gradient is the weight times 1/2 - label.
    pair, slope = run(balanced_binary_cross_entropy, 0 * LOGITS, np.array([[1, 0, 0, 0]]), ONES)
    np.testing.assert_allclose(slope[0], [-0.5 * 2.0, *[0.5 * 0.666667] * 3], atol=1e-6)
    assert mean(pair) == pytest.approx(np.log(2), abs=1e-6)


def test_rank_loss_depends_on_differences_within_a_sequence_only():
    """Sequences without errors, or without correct tokens that count, do not count."""
    logits = np.concatenate([LOGITS + 3.7, LOGITS + 1, LOGITS - 1, LOGITS])
    wrong = np.concatenate([WRONG, np.ones((1, 4)), np.zeros((1, 4)), WRONG])
    weights = np.ones((4, 4))
    weights[3, 1:3] = 0  # its correct tokens are padding
    (total, count), slope = run(rank_loss, logits, wrong, weights)
    assert count == 1 and total == pytest.approx(0.153926, abs=1e-6)
    assert np.all(slope[0]) and not np.any(slope[1:])


@pytest.mark.parametrize("loss", [binary_cross_entropy, balanced_binary_cross_entropy, rank_loss])
def test_losses_are_finite_and_tokens_of_weight_zero_do_not_count(loss):
    extreme = np.array([[200.0, -200, 90, -90]])
    for wrong in (WRONG, 1 - WRONG, ONES, 0 * ONES):
        (total, _), slope = run(loss, extreme, wrong, ONES)
        assert np.isfinite(total) and np.isfinite(slope).all()
    weighted, _ = run(loss, extreme, WRONG, np.array([[1, 1, 0, 1]]))
    sliced, _ = run(loss, *(array[:, [0, 1, 3]] for array in (extreme, WRONG, ONES)))
    np.testing.assert_allclose(weighted, sliced)
    changed, _ = run(loss, extreme, np.array([[1, 0, 1, 1]]), np.array([[1, 1, 0, 1]]))
    np.testing.assert_allclose(weighted[0], changed[0])


# The objective as a whole.


@pytest.mark.parametrize(("process", "scope"), [(PROCESS, "all"), (PRIME, "filled")], ids=["tokens", "digits filled"])
def test_padding_and_tokens_out_of_scope_do_not_count(process, scope):
    def predictor(denoiser, params, state, label=None, *, keys=None):
        assert (keys is None) == (label is None), "dropout is for training only"
        return jnp.where(process.decode(state) == 2, 1.0, -1.0) + params["shift"]

    task = objective(always(2, VOCAB), predictor, process, scope=scope)

    @jax.jit
    def run(shift, noise):
        params = PARAMS | {"errors": {"shift": shift}}
        labeled = task(params, BATCHES | {"label": jnp.zeros(BATCH)}, noise, train=True)
        return labeled, task(params, BATCHES, noise, train=False), task.examples(params, BATCHES, noise)

    (total, metrics), (plain, _), batch_examples = run(jnp.zeros((BATCH, LENGTH)), NOISE)
    assert total == plain == metrics["loss"][0]
    weights = WEIGHTS * batch_examples.drawn if scope == "filled" else WEIGHTS
    np.testing.assert_allclose(run(jnp.where(weights > 0, 0, 1e3), NOISE)[0][0], total, rtol=1e-6)
    assert metrics["loss"][1] == weights.sum() < BATCH * LENGTH
    tokens = np.asarray(process.decode(batch_examples.state))
    np.testing.assert_array_equal(batch_examples.labels, (tokens != TOKENS) & (WEIGHTS > 0))
    logits = np.where(tokens == 2, 1.0, -1.0)
    nats = np.log1p(np.exp(np.where(batch_examples.labels > 0, -logits, logits)))
    np.testing.assert_allclose(total, (nats * weights).sum(), rtol=1e-5)
    predicted, wrong, counted = logits > 0, np.asarray(batch_examples.labels) > 0, np.asarray(weights) > 0
    hits = (predicted & wrong & counted).sum()
    expected = {
        "accuracy": ((predicted == wrong) & counted).sum() / counted.sum(),
        "error_rate": (wrong & counted).sum() / counted.sum(),
        "precision": hits / (predicted & counted).sum(),
        "recall": hits / (wrong & counted).sum(),
        "f1": 2 * hits / ((predicted & counted).sum() + (wrong & counted).sum()),
    }
    assert hits > 2
    for name, value in expected.items():
        assert mean(metrics[name]) == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "other"}, r"predictor\.labels: unknown 'other'; known: one_step, corruption, likelihood, consist"),
        ({"corruption": 1.5}, r"predictor\.corruption: must lie in \[0, 1\], not 1\.5"),
        ({"steps": 0}, r"predictor\.steps: must be at least 1"),
        ({"minimum_time": 0.0}, r"objective\.minimum_time: must lie between 0 and 1"),
        ({"labels": "likelihood"}, r"predictor\.judge: "),
        ({"labels": "corruption", "scope": "filled"}, r"predictor\.scope: "),
        ({"labels": "corruption", "own_masks": True}, r"predictor\.own_masks: "),
    ],
)
def test_invalid_options_are_rejected(fields, message):
    with refused(message):
        objective(**fields)


# With a network.


def network(process):
    """A network for the predictor, its random weights, and the denoiser that they define."""
    embedder = None if process.subtokens == 1 else SubtokenEmbedding(process.mask_id, process.subtokens, 16)
    net = DiT(VOCAB + (process.subtokens == 1), 16, 1, 2, 8, embedder=embedder, dropout=0.2)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, LENGTH * process.subtokens), jnp.int32)))

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, None, keys=keys)

    return net, random_like(shapes["params"], 0.3), denoiser


@pytest.mark.parametrize(("kind", "process"), [("block", PRIME), ("head", PROCESS)], ids=["block digits", "head"])
def test_the_initial_loss_is_ln_2_and_the_denoiser_has_no_gradient(kind, process):
    net, denoiser_params, denoiser = network(process)
    predictor = ErrorPredictor(kind, net)
    task = objective(denoiser, predictor, process, draw=Draw)

    @jax.jit
    def slope(errors, noise):
        params = {"denoiser": denoiser_params, "errors": errors}
        return jax.value_and_grad(task, has_aux=True)(params, BATCHES, noise)

    new = jax.jit(predictor.init)(jax.random.key(1), denoiser_params)
    (_, metrics), gradient = slope(new, NOISE)
    assert mean(metrics["loss"]) == pytest.approx(0.693147, abs=1e-6)
    assert 0 < mean(metrics["error_rate"]) < 1 and metrics["loss"][1] == WEIGHTS.sum()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["denoiser"]))
    assert np.all(gradient["errors"]["head"]["linear"]["kernel"])
    _, gradient = slope(random_like(new, 0.3, 1), NOISE)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["denoiser"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient["errors"]))


def test_micro_batches_leave_the_gradient_unchanged():
    net, denoiser_params, denoiser = network(PROCESS)
    predictor = ErrorPredictor("head", net)
    errors = random_like(jax.eval_shape(predictor.init, jax.random.key(1), denoiser_params), 0.3, 1)
    params, task = {"denoiser": denoiser_params, "errors": errors}, objective(denoiser, predictor, loss="ranknet")
    slope = jax.jit(lambda accumulate: gradients(task, params, BATCHES, NOISE, accumulate), static_argnums=0)
    (whole, metrics), (cut, others) = slope(1), slope(2)
    assert np.abs(whole["errors"]["head"]["linear"]["kernel"]).max() > 1e-4
    chex.assert_trees_all_close((whole, metrics), (cut, others), rtol=1e-4, atol=1e-6)
