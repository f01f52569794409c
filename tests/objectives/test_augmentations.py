"""Augmentations of the sequences that an error predictor learns from."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.error_labels import WINDOW, Augment, similar_tokens
from diffusion.processes.masking import MaskedDiffusion
from diffusion.schedules import masking as schedules
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
    at_time,
    examples,
    objective,
)


@partial(jax.jit, static_argnums=(0, 1))
def corrupt(augment, process, keys, tokens, weights, denoiser=None):
    return augment(keys, process.encode(tokens), weights > 0, process, denoiser)


def test_replacements_have_the_requested_fraction():
    counts = WEIGHTS.sum(axis=1)
    zeros = jnp.zeros((BATCH, LENGTH), jnp.int32)
    state = corrupt(Augment(uniform=0.3), MaskedDiffusion(10**6, PROCESS.schedule), NOISE.keys, zeros, WEIGHTS)
    np.testing.assert_array_equal((state != 0).sum(axis=1), np.round(0.3 * counts))
    assert not np.any(state * (1 - WEIGHTS))
    state = corrupt(Augment(semantic=0.3), PROCESS, NOISE.keys, TOKENS, WEIGHTS, PARAMS["denoiser"])
    np.testing.assert_array_equal((state != TOKENS).sum(axis=1), np.round(0.3 * counts))
    assert not np.any((state != TOKENS) & (WEIGHTS == 0)) and state.max() < VOCAB
    np.testing.assert_array_equal(corrupt(Augment(), PROCESS, NOISE.keys, TOKENS, WEIGHTS), TOKENS)


def test_unigram_replacements_are_tokens_of_the_same_sequence():
    """They are drawn in proportion to their counts; only counted positions are read and replaced."""
    size = 500
    row = jnp.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 8, 8, 8])
    keys = jax.random.split(jax.random.key(8), size)
    weights = (row < 8).astype(jnp.float32)
    tokens, weights = jnp.broadcast_to(row[None], (size, 12)), jnp.broadcast_to(weights[None], (size, 12))
    state = corrupt(Augment(unigram=1.0), PROCESS, keys, tokens, weights)
    np.testing.assert_array_equal(state[:, 9:], tokens[:, 9:])
    shares = [(state[:, :9] == token).mean() for token in (0, 1, 2)]
    np.testing.assert_allclose(shares, [6 / 9, 2 / 9, 1 / 9], atol=0.03)
    half = corrupt(Augment(unigram=0.5), PROCESS, keys, tokens, weights)
    assert ((half != tokens).sum(axis=1) <= 4).all() and ((half != tokens).sum(axis=1) == 4).any()


def test_semantic_replacements_follow_the_cosine_similarities():
    table = jnp.array([[2.0, 0], [3, 0], [0, 1], [-5, 0]])
    tokens = jnp.zeros((20, 200), jnp.int32).at[:, 100:].set(2)
    drawn = jax.jit(similar_tokens)(jax.random.split(jax.random.key(3), 20), tokens, table)
    probs = np.exp([1, 0, -1]) / np.exp([1, 0, -1]).sum()
    np.testing.assert_allclose([(drawn[:, :100] == token).mean() for token in (1, 2, 3)], probs, atol=0.035)
    np.testing.assert_allclose([(drawn[:, 100:] == token).mean() for token in (0, 1, 3)], [1 / 3] * 3, atol=0.035)


def test_shuffling_keeps_the_tokens_of_every_window():
    length, size = 3 * WINDOW + 2, 40
    tokens = jnp.broadcast_to(jnp.arange(length)[None], (size, length))
    weights = jnp.ones((size, length)).at[1, WINDOW - 1].set(0)
    keys = jax.random.split(jax.random.key(9), size)
    process = MaskedDiffusion(length, PROCESS.schedule)
    state = np.asarray(corrupt(Augment(shuffle=0.6), process, keys, tokens, weights))  # round(0.6 * 20 / 6) = 2 windows
    cut = state[:, : 3 * WINDOW].reshape(size, 3, WINDOW)
    np.testing.assert_array_equal(np.sort(cut, axis=-1).reshape(size, -1), tokens[:, : 3 * WINDOW])
    np.testing.assert_array_equal(state[:, 3 * WINDOW :], tokens[:, 3 * WINDOW :])
    moved = (cut != np.arange(3 * WINDOW).reshape(1, 3, WINDOW)).any(axis=-1)
    assert (moved.sum(axis=1) == 2).all() and moved.any(axis=0).all() and not moved.all(axis=0).any()
    assert not moved[1, 0], "a window with padding is not shuffled"
    short = tokens[:, :4]
    np.testing.assert_array_equal(corrupt(Augment(shuffle=1.0), process, keys, short, weights[:, :4]), short)


def test_labels_compare_the_augmented_state_with_the_text():
    process = MaskedDiffusion(2, schedules.LogLinear())
    task = objective(always(0, 3), process=process, augment=Augment(uniform=1.0))
    batch = BATCHES | {"tokens": TOKENS % 2}
    batch_examples = examples(task, PARAMS, batch, at_time(1e-3))
    np.testing.assert_array_equal(batch_examples.labels, (batch_examples.state != TOKENS % 2) & (WEIGHTS > 0))
    assert 0.25 < batch_examples.labels.sum() / WEIGHTS.sum() < 0.75


def test_subtokens_of_a_token_are_corrupted_together():
    for augment in (Augment(uniform=0.5), Augment(unigram=0.5), Augment(shuffle=1.0)):
        state = corrupt(augment, PRIME, NOISE.keys, TOKENS, jnp.ones(TOKENS.shape))
        tokens = PRIME.decode(state)
        assert tokens.max() < VOCAB and 0 < (tokens != TOKENS).sum() < TOKENS.size
        if not augment.shuffle:
            assert (tokens != TOKENS).sum(axis=1).max() <= 6


@pytest.mark.parametrize("name", ["uniform", "unigram", "semantic", "shuffle"])
def test_fractions_outside_zero_to_one_are_rejected(name):
    with pytest.raises(ValueError, match=rf"predictor\.augment\.{name}: must lie in \[0, 1\], not 2"):
        Augment(**{name: 2})
