"""The objective of embedding diffusion: extensions that are off, gradients, dropout, terms of the loss, and lengths."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from diffusion.objectives.autoregressive import NextTarget
from diffusion.objectives.embedding import (
    EmbeddingDiffusion,
    cross_entropy,
    fill_padding,
    length_classes,
    length_loss,
    source_of,
)
from diffusion.objectives.noise_scaling import NoiseScaling
from diffusion.objectives.perturbation import Perturbation
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.readout import of_logits
from diffusion.rng import draws
from diffusion.schedules.gaussian import SigmaIsTime
from diffusion.types import SequenceCondition
from tests.checks import optimized, refused
from tests.small_translator import CODEC, VOCAB, batch_of, denoise, encode, weights

PROCESS = GaussianDiffusion(SigmaIsTime(), "clean", 3.0)
BASE = EmbeddingDiffusion(encode, denoise, CODEC, PROCESS)
BATCH = batch_of()


NOISE = draws(jax.random.key(5), "train", 0, len(BATCH["tokens"]))


@functools.cache
def outcome(**fields):
    """Compute loss, metrics and gradients at fixed weights and draws, without dropout."""
    objective = replace(BASE, **fields)
    loss = jax.value_and_grad(lambda params: objective(params, BATCH, NOISE, False), has_aux=True)
    run = optimized(loss)
    (total, metrics), gradients = run(weights())
    return total, metrics, gradients


def recorder(calls):
    """Return the denoiser, which appends its inputs to `calls`."""

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        calls.append((noisy, time, memory, keys))
        return denoise(params, noisy, time, cond, memory, keys=keys)

    return denoiser


@pytest.mark.parametrize(
    "fields",
    [
        dict(scaling=NoiseScaling("shift", strength=0.0), perturbation=Perturbation("fixed", size=0.0)),
        dict(
            scaling=NoiseScaling("scale", largest=1.0),
            perturbation=Perturbation("uniform", probability=0.0, couple="markov"),
        ),
    ],
    ids=["shift_and_fixed", "scale_and_markov"],
)
def test_extensions_that_are_off_change_no_bit(fields):
    """In the loss, its terms, and the gradients."""
    (_, metrics, gradients), (_, others, same) = outcome(), outcome(**fields)
    for name in ("loss", "square", "anchor", "length"):
        np.testing.assert_array_equal(metrics[name], others[name])
    jax.tree.map(np.testing.assert_array_equal, gradients, same)


SHIFT = NoiseScaling("shift")


@pytest.mark.parametrize(
    ("fields", "train", "expected"),
    [
        (dict(scaling=SHIFT), True, [False, False, True]),
        (dict(scaling=SHIFT, estimate_dropout=True), True, [True, True, True]),
        (dict(scaling=SHIFT, estimate_dropout=True), False, [False, False, False]),
        ({}, True, [False, True]),
        (dict(memory_rate=0.0), True, [True]),
        (dict(memory_rate=0.0, alternate="sum"), True, [False, True, True]),
    ],
)
def test_estimates_are_computed_where_they_are_read_and_have_dropout_only_on_demand(fields, train, expected):
    calls = []
    objective = replace(BASE, denoiser=recorder(calls), **fields)
    jax.eval_shape(lambda params: objective(params, BATCH, NOISE, train), weights())
    assert [keys is not None for *_, keys in calls] == expected


def test_no_gradient_passes_through_estimates_and_times():
    """The gradient is that of a step with the self-conditioning input and the times as constants."""
    objective = replace(BASE, perturbation=Perturbation("fixed", couple="markov"), scaling=SHIFT, memory_rate=1.0)
    calls = []
    recorded = replace(objective, denoiser=recorder(calls))

    def with_inputs(params):
        calls.clear()
        total, _ = recorded(params, BATCH, NOISE, False)
        return total, [inputs[:3] for inputs in calls]

    (total, inputs), gradients = jax.jit(jax.value_and_grad(with_inputs, has_aux=True))(weights())
    (_, _, first), (_, _, second), (_, time, previous) = inputs
    assert first is None and second is None and float(jnp.abs(previous).max()) > 0

    def with_constants(params):
        clean = CODEC.encode(params, BATCH["tokens"])
        noisy, _ = PROCESS.corrupt(NOISE.keys, clean, time)
        mask = BATCH["weights"] > 0
        encoded = encode(params, BATCH["source"], mask)
        predicted = denoise(params, noisy, time, SequenceCondition(encoded, mask), previous)
        total, _ = objective.loss(params, predicted, clean, BATCH["tokens"], BATCH["weights"])
        nats, _ = length_loss(encoded.lengths, mask, mask)
        return total + 0.1 * jnp.sum(nats * jnp.sum(BATCH["weights"], axis=1))

    expected = jax.jit(jax.value_and_grad(with_constants))(weights())
    np.testing.assert_allclose(total, expected[0], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=1e-5), gradients, expected[1])


def test_alternate_sum_adds_the_losses_without_and_with_self_conditioning():
    """As in DINOISER; the length is not tested here."""

    @jax.jit
    def totals(params):
        kinds = (dict(alternate="sum"), dict(memory_rate=0.0), dict(memory_rate=1.0))
        return [replace(BASE, length_weight=0.0, **fields)(params, BATCH, NOISE, False)[0] for fields in kinds]

    both, unconditioned, conditioned = map(float, totals(weights()))
    assert both == pytest.approx(unconditioned + conditioned, rel=1e-5)
    assert unconditioned != conditioned


def test_the_cross_entropy_is_that_of_the_estimate_or_of_the_clean_embedding():
    @jax.jit
    def losses(params):
        clean, results = CODEC.encode(params, BATCH["tokens"]), {}
        for kind, latents in (("anchor", 0.5 * clean), ("round", clean)):
            nats = cross_entropy(CODEC.logits(params, latents), BATCH["tokens"], VOCAB, 0.0)
            loss = replace(BASE, rounding=kind).loss(params, 0.5 * clean, clean, BATCH["tokens"], BATCH["weights"])
            results[kind] = *loss, jnp.sum(nats * BATCH["weights"])
        return results

    results = losses(weights())
    for kind, (total, metrics, nats) in results.items():
        assert float(metrics[kind][0]) == pytest.approx(float(nats), rel=1e-5)
        assert float(total) == pytest.approx(float(nats + metrics["square"][0]), rel=1e-5)
    assert results["anchor"][0] > results["round"][0] > 0


def test_examples_of_weight_zero_do_not_count():
    weightless = BATCH | {name: BATCH[name].at[1].set(0.0) for name in ("weights", "source_weights")}
    other = weightless | {name: weightless[name].at[1].set(3) for name in ("tokens", "source")}

    scaling, perturbation = NoiseScaling("scale", aware=False), Perturbation("uniform", couple="markov")
    objective = replace(BASE, scaling=scaling, perturbation=perturbation)
    run = jax.jit(lambda batch: objective(weights(), batch, NOISE, False))
    (one, metrics), (two, _) = run(weightless), run(other)
    assert np.isfinite(one) and one == two
    assert metrics["loss"][1] == weightless["weights"].sum()


def test_filled_padding_is_learned_as_a_token():
    _, metrics = jax.eval_shape(lambda: replace(BASE, fill=0)(weights(), BATCH, NOISE, False))
    assert "length" not in metrics
    tokens, counted = fill_padding(BATCH | {"weights": BATCH["weights"].at[1].set(0.0)}, 0)
    mask = np.asarray(BATCH["weights"]) > 0
    np.testing.assert_array_equal(tokens[0], np.where(mask[0], BATCH["tokens"][0], 0))
    np.testing.assert_array_equal(counted, [[1] * 5, [0] * 5, [1] * 5])


def test_null_sources_replace_sources():
    alone = {name: BATCH[name] for name in ("tokens", "weights")}
    for batch in (alone, BATCH):
        tokens, mask = source_of(batch, VOCAB)
        np.testing.assert_array_equal(tokens, [[VOCAB]] * 3)
        assert mask.all()
    with refused(r"data.source: the examples have no source text"):
        source_of(alone, None)


def test_length_classes_are_offsets_from_the_source():
    """A target of 12 tokens for a source of 10 has class 130."""
    ten, twelve, many = (jnp.ones((1, count), bool) for count in (10, 12, 200))
    for source, target, expected in ((ten, twelve, 130), (twelve, ten, 126), (many, ten, 0)):
        assert int(length_classes(source, target, 256)[0]) == expected
    logits = jnp.zeros((1, 256)).at[0, 130].set(9.0)
    nats, hits = length_loss(logits, ten, twelve)
    assert float(nats[0]) == pytest.approx(np.log(np.exp(9) + 255) - 9, rel=1e-4) and bool(hits[0])


def test_cross_entropy_with_label_smoothing():
    logits = np.random.default_rng(0).normal(size=(1, 2, 5)).astype(np.float32)
    tokens, log_probs = np.array([[1, 4]]), log_softmax(logits, axis=-1)
    logits = jnp.asarray(logits)
    gold = -log_probs[0, [0, 1], [1, 4]]
    np.testing.assert_allclose(cross_entropy(logits, tokens, 5, 0.0)[0], gold, rtol=1e-5)
    smoothed = 0.9 * gold - 0.1 * log_probs[0].mean(-1)
    np.testing.assert_allclose(cross_entropy(logits, tokens, 5, 0.1)[0], smoothed, rtol=1e-5)


def test_the_autoregressive_loss_is_the_negative_log_likelihood():
    logits = np.random.default_rng(0).normal(size=(3, 5, VOCAB + 2)).astype(np.float32)
    calls = []

    def next_readout(params, tokens, encoded, keys=None):
        calls.append((tokens, encoded.states))
        return of_logits(jnp.asarray(logits))

    @jax.jit
    def run(params):
        objective = NextTarget(encode, next_readout, VOCAB, VOCAB, label_smoothing=0.1)
        states = encode(params, BATCH["source"], BATCH["source_weights"]).states
        return objective(params, BATCH, NOISE, False)[0], calls.pop(), states

    total, (inputs, states), expected = run(weights())
    log_probs = log_softmax(logits[..., :VOCAB], axis=-1)
    gold = np.take_along_axis(log_probs, np.asarray(BATCH["tokens"])[..., None], axis=-1)[..., 0]
    assert float(total) == pytest.approx(-(gold * np.asarray(BATCH["weights"])).sum(), rel=1e-5)
    np.testing.assert_array_equal(inputs, np.pad(BATCH["tokens"][:, :-1], ((0, 0), (1, 0)), constant_values=VOCAB))
    np.testing.assert_array_equal(states, expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(alternate="never"), "objective.alternate: unknown 'never'; known: flip, sum"),
        (dict(memory_rate=2.0), "objective.memory_rate: must lie in"),
        (dict(process=GaussianDiffusion(SigmaIsTime())), "process.prediction: embedding diffusion predicts the clean"),
    ],
)
def test_invalid_options_are_rejected(fields, message):
    with refused(message):
        replace(BASE, **fields)
