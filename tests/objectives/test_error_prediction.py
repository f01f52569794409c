"""The objective of the error predictor: worked losses, tokens that count, gradients, and a toy example of learning."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.objectives.error_prediction import balanced_binary_cross_entropy, binary_cross_entropy, rank_loss
from diffusion.rng import draws
from diffusion.sampling.masked.draw import Draw
from diffusion.train.step import gradients
from tests.languages import denoiser_of
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
    point,
)
from tests.weights import random_like

# Losses.

LOGITS, WRONG = jnp.array([[1.0, 0, -1, 2]]), jnp.array([[1.0, 0, 0, 1]])
ONES = jnp.ones((1, 4))


def mean(pair):
    return pair[0] / pair[1]


def test_worked_losses():
    assert mean(rank_loss(LOGITS, WRONG, ONES)) == pytest.approx(0.153926, abs=1e-6)
    assert mean(binary_cross_entropy(LOGITS, WRONG, ONES)) == pytest.approx(0.361650, abs=1e-6)
    # At logit 0 the gradient is the weight times 1/2 - label.
    slope = jax.grad(lambda e: balanced_binary_cross_entropy(e, WRONG.at[0, 3].set(0), ONES)[0])(jnp.zeros((1, 4)))
    np.testing.assert_allclose(slope[0], [-0.5 * 2.0, *[0.5 * 0.666667] * 3], atol=1e-6)
    assert mean(balanced_binary_cross_entropy(0 * LOGITS, WRONG, ONES)) == pytest.approx(np.log(2), abs=1e-6)


def test_rank_loss_depends_on_differences_within_a_sequence_only():
    shifted = rank_loss(LOGITS + 3.7, WRONG, ONES)
    assert mean(shifted) == pytest.approx(0.153926, abs=1e-6)
    logits = jnp.concatenate([LOGITS, LOGITS + 1, LOGITS - 1, LOGITS])
    wrong = jnp.concatenate([WRONG, jnp.ones((1, 4)), jnp.zeros((1, 4)), WRONG])
    weights = jnp.ones((4, 4)).at[3].set(jnp.array([1.0, 0, 0, 1]))  # its correct tokens are padding
    (total, count), slope = (
        rank_loss(logits, wrong, weights),
        jax.grad(lambda e: rank_loss(e, wrong, weights)[0])(logits),
    )
    assert count == 1 and total == pytest.approx(0.153926, abs=1e-6)
    assert np.all(slope[0]) and not np.any(slope[1:])
    total, count = rank_loss(LOGITS, 0 * WRONG, ONES)
    assert total == 0 and count == 0


@pytest.mark.parametrize("loss", [binary_cross_entropy, balanced_binary_cross_entropy, rank_loss])
def test_losses_are_finite_and_tokens_of_weight_zero_do_not_count(loss):
    extreme = jnp.array([[200.0, -200, 90, -90]])
    for wrong in (WRONG, 1 - WRONG, jnp.ones((1, 4)), jnp.zeros((1, 4))):
        total, slope = jax.value_and_grad(lambda e, wrong=wrong: loss(e, wrong, ONES)[0])(extreme)
        assert np.isfinite(total) and np.isfinite(slope).all()
    weights = ONES.at[0, 2].set(0)
    counted = jnp.array([0, 1, 3])
    for weighted, sliced in zip(
        loss(extreme, WRONG, weights), loss(extreme[:, counted], WRONG[:, counted], ONES[:, counted]), strict=True
    ):
        np.testing.assert_allclose(weighted, sliced)
    np.testing.assert_allclose(loss(extreme, WRONG, weights)[0], loss(extreme, WRONG.at[0, 2].set(1), weights)[0])


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
        ({"loss": "mse"}, r"predictor\.loss: unknown 'mse'; known: bce, balanced, ranknet"),
        ({"scope": "some"}, r"predictor\.scope: unknown 'some'; known: all, filled"),
        ({"corruption": 1.5}, r"predictor\.corruption: must lie in \[0, 1\], not 1\.5"),
        ({"steps": 0}, r"predictor\.steps: must be at least 1"),
        ({"minimum_time": 0.0}, r"objective\.minimum_time: must lie between 0 and 1"),
        ({"labels": "likelihood"}, r"predictor\.judge: "),
        ({"labels": "corruption", "scope": "filled"}, r"predictor\.scope: "),
        ({"labels": "corruption", "own_masks": True}, r"predictor\.own_masks: "),
    ],
)
def test_invalid_options_are_rejected(fields, message):
    with pytest.raises(ValueError, match=message):
        objective(**fields)


# With a network.


def network(process):
    """A network for the predictor, its random weights, and the denoiser that they define."""
    embedder = None if process.subtokens == 1 else SubtokenEmbedding(process.mask_id, process.subtokens, 16)
    net = DiT(VOCAB + (process.subtokens == 1), 16, 2, 2, 8, embedder=embedder, dropout=0.2)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, LENGTH * process.subtokens), jnp.int32)))

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, None, keys=keys)

    return net, random_like(shapes["params"], 0.3), denoiser


@pytest.mark.parametrize(
    ("kind", "process"), [("full", PROCESS), ("block", PRIME), ("head", PROCESS)], ids=["full", "block digits", "head"]
)
def test_the_initial_loss_is_ln_2_and_the_denoiser_has_no_gradient(kind, process):
    net, denoiser_params, denoiser = network(process)
    predictor = ErrorPredictor(kind, net)
    task = objective(denoiser, predictor, process, draw=Draw)

    @jax.jit
    def slope(errors, noise):
        params = {"denoiser": denoiser_params, "errors": errors}
        return jax.value_and_grad(task, has_aux=True)(params, BATCHES, noise)

    new = predictor.init(jax.random.key(1), denoiser_params)
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
    errors = random_like(predictor.init(jax.random.key(1), denoiser_params), 0.3, 1)

    @partial(jax.jit, static_argnums=(0, 1))
    def slope(task, accumulate):
        params, noise = {"denoiser": denoiser_params, "errors": errors}, draws(jax.random.key(5), "test", 0, BATCH)
        return gradients(task, params, BATCHES, noise, accumulate)

    for loss in ("bce", "ranknet"):
        task = objective(denoiser, predictor, loss=loss)
        (whole, metrics), (cut, others) = slope(task, 1), slope(task, 2)
        assert np.abs(whole["errors"]["head"]["linear"]["kernel"]).max() > 1e-4
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, cut)
        for name, pair in metrics.items():
            np.testing.assert_allclose(pair, others[name], rtol=1e-5, err_msg=name)


def test_a_predictor_learns_the_errors_of_a_denoiser():
    """Texts are a cue 0 or 1, then only 2 or only 3; the denoiser predicts the cue and 2, an error after cue 1.

    Whether a 2 is an error depends on the cue, and not on the token alone.
    """
    cues = jax.random.randint(jax.random.key(2), (32, 1), 0, 2)
    tokens = jnp.concatenate([cues, jnp.repeat(cues + 2, LENGTH - 1, axis=1)], axis=1)
    batch = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}

    denoiser = denoiser_of(lambda *_: point(jnp.concatenate([cues, jnp.full((32, LENGTH - 1), 2)], axis=1)))
    net, params, _ = network(PROCESS)
    predictor = ErrorPredictor("block", net.clone(dropout=0.0))
    task, optimizer = objective(denoiser, predictor), optax.adam(1e-2)

    @jax.jit
    def train(errors):
        def step(carry, index):
            errors, state = carry
            noise = draws(jax.random.key(0), "train", index, 32)
            grads, metrics = gradients(task, {"denoiser": params, "errors": errors}, batch, noise, 1)
            updates, state = optimizer.update(grads["errors"], state)
            return (optax.apply_updates(errors, updates), state), metrics

        return jax.lax.scan(step, (errors, optimizer.init(errors)), jnp.arange(64))[1]

    metrics = train(predictor.init(jax.random.key(1), params))
    loss = np.asarray(metrics["loss"][0] / metrics["loss"][1])
    # The loss of the best predictor that reads each token separately.
    wrong = float(jnp.sum(metrics["error_rate"][0]) / jnp.sum(metrics["error_rate"][1]))
    twos = wrong + float(jnp.mean(tokens == 2))
    chance = wrong / twos
    token_alone = -twos * (chance * np.log(chance) + (1 - chance) * np.log(1 - chance))
    assert loss[0] == pytest.approx(np.log(2), abs=1e-5)
    assert loss[-5:].mean() < 0.3 * token_alone < np.log(2)
    assert float(metrics["recall"][0][-1] / metrics["recall"][1][-1]) > 0.9
