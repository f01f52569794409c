"""The objective of embedding diffusion: extensions that are off, gradients, dropout, terms of the loss, and lengths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion.codecs.embedding import EmbeddingCodec
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
from diffusion.rng import draws
from diffusion.schedules.gaussian import SigmaIsTime
from diffusion.types import EncodedSource, SequenceCondition
from tests.small_translator import CODEC, VOCAB, batch_of, denoise, encode, weights

PROCESS = GaussianDiffusion(SigmaIsTime(), "clean", 3.0)
BASE = EmbeddingDiffusion(encode, denoise, CODEC, PROCESS)
BATCH = batch_of()


def objective_with(**fields):
    return EmbeddingDiffusion(**vars(BASE) | fields)


NOISE = draws(jax.random.key(5), "train", 0, len(BATCH["tokens"]))


@functools.cache
def outcome(objective):
    """Compute loss, metrics and gradients at fixed weights and draws, without dropout."""
    run = jax.jit(jax.value_and_grad(lambda params: objective(params, BATCH, NOISE, False), has_aux=True))
    (total, metrics), gradients = run(weights())
    return total, metrics, gradients


def recorder(calls):
    """Return the denoiser, which appends its inputs to `calls`."""

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        calls.append((noisy, time, memory, keys))
        return denoise(params, noisy, time, cond, memory, keys=keys)

    return denoiser


def assert_equal(one, other):
    """Check that loss, its terms, and gradients are equal bit for bit."""
    for name in ("loss", "square", "anchor", "length"):
        np.testing.assert_array_equal(one[1][name], other[1][name])
    jax.tree.map(np.testing.assert_array_equal, one[2], other[2])


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
    assert_equal(outcome(BASE), outcome(objective_with(**fields)))


def test_extensions_that_are_on_change_the_loss():
    scaling, perturbation = NoiseScaling("scale", aware=False), Perturbation("uniform", couple="markov")
    total, metrics, gradients = outcome(objective_with(scaling=scaling, perturbation=perturbation))
    assert np.isfinite(total) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert float(metrics["loss"][1]) == float(BATCH["weights"].sum())
    # With these draws at least one example reads an estimate.
    assert float(total) != float(outcome(BASE)[0])


def test_estimates_have_dropout_only_with_estimate_dropout():
    calls = []
    for fields, train, expected in (
        ({}, True, [False, False, True]),
        ({"estimate_dropout": True}, True, [True, True, True]),
        ({"estimate_dropout": True}, False, [False, False, False]),
    ):
        calls.clear()
        objective = objective_with(denoiser=recorder(calls), scaling=NoiseScaling("shift"), **fields)
        jax.eval_shape(lambda params, run=objective, on=train: run(params, BATCH, NOISE, on), weights())
        assert [keys is not None for *_, keys in calls] == expected


@pytest.mark.parametrize(
    ("fields", "expected"), [({}, 2), ({"memory_rate": 0.0}, 1), ({"alternate": "sum", "memory_rate": 0.0}, 3)]
)
def test_estimates_that_no_example_reads_are_not_computed(fields, expected):
    calls = []
    objective = objective_with(denoiser=recorder(calls), **fields)
    jax.eval_shape(lambda params: objective(params, BATCH, NOISE), weights())
    assert len(calls) == expected


def test_no_gradient_passes_through_estimates_and_times():
    """The gradient is that of a step with the self-conditioning input and the times as constants."""
    objective = objective_with(
        perturbation=Perturbation("fixed", couple="markov"), scaling=NoiseScaling("shift"), memory_rate=1.0
    )
    calls = []
    recorded = EmbeddingDiffusion(**vars(objective) | {"denoiser": recorder(calls)})

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
        return [objective_with(length_weight=0.0, **fields)(params, BATCH, NOISE, False)[0] for fields in kinds]

    both, unconditioned, conditioned = map(float, totals(weights()))
    assert both == pytest.approx(unconditioned + conditioned, rel=1e-5)
    assert unconditioned != conditioned


def test_the_cross_entropy_is_that_of_the_estimate_or_of_the_clean_embedding():
    clean = CODEC.encode(weights(), BATCH["tokens"])
    arguments = (weights(), 0.5 * clean, clean, BATCH["tokens"], BATCH["weights"])
    kinds = ("anchor", "round")
    losses = jax.jit(lambda *arguments: [objective_with(rounding=kind).loss(*arguments) for kind in kinds])
    for kind, latents, (total, metrics) in zip(kinds, (0.5 * clean, clean), losses(*arguments), strict=True):
        nats = cross_entropy(CODEC.logits(weights(), latents), BATCH["tokens"], VOCAB, 0.0)
        assert float(metrics[kind][0]) == pytest.approx(float(jnp.sum(nats * BATCH["weights"])), rel=1e-5)
        assert float(total) == pytest.approx(float(metrics[kind][0] + metrics["square"][0]), rel=1e-5)
    anchor, rounded = (float(total) for total, _ in losses(*arguments))
    assert anchor > rounded > 0


def test_examples_of_weight_zero_do_not_count():
    weightless = BATCH | {name: BATCH[name].at[1].set(0.0) for name in ("weights", "source_weights")}
    other = weightless | {name: weightless[name].at[1].set(3) for name in ("tokens", "source")}

    @jax.jit
    def run(batch):
        return objective_with(scaling=NoiseScaling("shift"))(weights(), batch, NOISE, False)

    (one, metrics), (two, _) = run(weightless), run(other)
    assert np.isfinite(one) and float(one) == float(two)
    assert float(metrics["loss"][1]) == float(weightless["weights"].sum())


def test_filled_padding_is_learned_as_a_token():
    _, metrics = jax.eval_shape(lambda: objective_with(fill=0)(weights(), BATCH, NOISE, False))
    assert "length" not in metrics
    tokens, counted = fill_padding(BATCH | {"weights": BATCH["weights"].at[1].set(0.0)}, 0)
    mask = np.asarray(BATCH["weights"]) > 0
    np.testing.assert_array_equal(tokens[0], np.where(mask[0], BATCH["tokens"][0], 0))
    np.testing.assert_array_equal(counted, [[1] * 5, [0] * 5, [1] * 5])


def test_null_sources_replace_sources():
    alone = {name: BATCH[name] for name in ("tokens", "weights")}
    tokens, mask = source_of(alone, VOCAB)
    np.testing.assert_array_equal(tokens, [[VOCAB]] * 3)
    assert mask.all()
    tokens, _ = source_of(BATCH, VOCAB)
    np.testing.assert_array_equal(tokens, [[VOCAB]] * 3)
    with pytest.raises(ValueError, match=r"data.source: the examples have no source text"):
        source_of(alone, None)


def test_length_classes_are_offsets_from_the_source():
    """A target of 12 tokens for a source of 10 has class 130."""
    ten, twelve = jnp.ones((1, 10), bool), jnp.ones((1, 12), bool)
    assert int(length_classes(ten, twelve, 256)[0]) == 130
    assert int(length_classes(twelve, ten, 256)[0]) == 126
    assert int(length_classes(jnp.ones((1, 200), bool), ten, 256)[0]) == 0
    logits = jnp.zeros((1, 256)).at[0, 130].set(9.0)
    nats, hits = length_loss(logits, ten, twelve)
    assert float(nats[0]) == pytest.approx(np.log(np.exp(9) + 255) - 9, rel=1e-4) and bool(hits[0])


def test_cross_entropy_with_label_smoothing():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 5)), jnp.float32)
    tokens = jnp.array([[1, 4]])
    log_probs = jax.nn.log_softmax(logits)
    gold = -log_probs[0, [0, 1], [1, 4]]
    np.testing.assert_allclose(cross_entropy(logits, tokens, 5, 0.0)[0], gold, rtol=1e-5)
    smoothed = 0.9 * gold - 0.1 * log_probs[0].mean(-1)
    np.testing.assert_allclose(cross_entropy(logits, tokens, 5, 0.1)[0], smoothed, rtol=1e-5)


def test_the_autoregressive_loss_is_the_negative_log_likelihood():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, VOCAB + 2)), jnp.float32)
    calls = []

    def next_logits(params, tokens, encoded, keys=None):
        calls.append((tokens, encoded.states))
        return logits

    objective = NextTarget(encode, next_logits, VOCAB, VOCAB, label_smoothing=0.1)
    total, _ = objective(weights(), BATCH, NOISE, False)
    log_probs = np.asarray(jax.nn.log_softmax(logits[..., :VOCAB]))
    gold = np.take_along_axis(log_probs, np.asarray(BATCH["tokens"])[..., None], axis=-1)[..., 0]
    assert float(total) == pytest.approx(-(gold * np.asarray(BATCH["weights"])).sum(), rel=1e-5)
    inputs, states = calls[0]
    np.testing.assert_array_equal(inputs[:, 1:], BATCH["tokens"][:, :-1])
    np.testing.assert_array_equal(inputs[:, 0], VOCAB)
    np.testing.assert_array_equal(states, encode(weights(), BATCH["source"], BATCH["source_weights"]).states)


def test_the_cross_entropy_keeps_embeddings_apart():
    """After 200 steps on a dictionary task they point in different directions and are not small."""
    codec = EmbeddingCodec(lambda params: params["table"], VOCAB, "scaled")

    def read(params, source, mask, keys=None):
        # A separate table, so that the target's embeddings depend on the loss alone.
        return EncodedSource(jnp.take(params["read"], source, axis=0), mask, jnp.zeros((len(source), 0)))

    objective = objective_with(codec=codec, encode=read, length_weight=0.0)
    optimizer = optax.adam(2e-2)
    source = jnp.arange(VOCAB)[None].repeat(4, 0)
    batch = {"tokens": (source + 3) % VOCAB, "weights": jnp.ones(source.shape)}
    batch |= {"source": source, "source_weights": batch["weights"]}

    def step(carry, index):
        params, state = carry
        noise = draws(jax.random.key(0), "train", index, 4)
        gradients, _ = jax.grad(objective, has_aux=True)(params, batch, noise, False)
        updates, state = optimizer.update(jax.tree.map(lambda leaf: leaf / 36, gradients), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params):
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(200))
        return codec.mean_cosine(params), jnp.mean(codec.rows(params)[:VOCAB] ** 2)

    cosine, size = run(weights(scale=0.3) | {"read": weights(seed=1)["table"]})
    assert cosine < 0.5 and size > 1


def test_invalid_options_are_rejected():
    for fields, message in (
        (dict(alternate="never"), "objective.alternate: unknown 'never'; known: flip, sum"),
        (dict(rounding="both"), "objective.rounding: unknown 'both'; known: anchor, round"),
        (dict(floor="wood"), "objective.floor: unknown 'wood'"),
        (dict(memory_rate=2.0), "objective.memory_rate: must lie in"),
        (dict(process=GaussianDiffusion(SigmaIsTime())), "process.prediction: embedding diffusion predicts the clean"),
    ):
        with pytest.raises(ValueError, match=message):
            objective_with(**fields)
