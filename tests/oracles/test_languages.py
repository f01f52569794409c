"""Oracles: posteriors, entropies and samples against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import log_probs, target_log_probs
from diffusion.objectives.autoregressive import shift_right
from diffusion.oracles.enumerable import Enumerable
from diffusion.oracles.markov import Markov, random_chain
from diffusion.oracles.tables import random_denoiser

CHAIN = random_chain(3, vocabulary=3, length=5)
TABLE = CHAIN.enumerate()


def probabilities(language, noisy, vocabulary=3):
    run = jax.jit(lambda noisy: jnp.exp(log_probs(language.denoise(noisy, jnp.zeros(len(noisy))), vocabulary)))
    return np.asarray(run(noisy))


def brute_force(noisy):
    """p(x^i = k | unmasked tokens), by a loop over sequences."""
    posterior = np.zeros((*noisy.shape, 3))
    for state, row in zip(noisy, posterior, strict=True):
        for probability, sequence in zip(TABLE.table, TABLE.sequences, strict=True):
            if np.all((state == 3) | (state == sequence)):
                row[np.arange(5), sequence] += probability
        row /= row.sum(axis=1, keepdims=True)
    return posterior


def test_posteriors_match_brute_force():
    """For samples with random masks, of which one has no masks and one has only masks."""
    random = np.random.default_rng(0)
    tokens = np.asarray(CHAIN.sample(jax.random.key(1), 200))
    level = np.concatenate([[0.0, 1.0], random.uniform(size=198)])
    noisy = np.where(random.uniform(size=tokens.shape) < level[:, None], 3, tokens)
    for language in (CHAIN, TABLE):
        probs = probabilities(language, noisy)
        np.testing.assert_allclose(probs[..., :3], brute_force(noisy), atol=1e-5)
        assert np.all(probs[..., 3] == 0)


def test_next_token_probabilities_satisfy_the_chain_rule():
    tokens = TABLE.sequences
    for language in (CHAIN, TABLE):
        run = jax.jit(lambda inputs, read=language.next_token: read(inputs, jnp.zeros(len(inputs))))
        log_p = target_log_probs(run(shift_right(jnp.asarray(tokens), 3)), tokens, 3)
        np.testing.assert_allclose(np.asarray(log_p).sum(axis=1), np.log(TABLE.table), atol=1e-4)


def test_entropies_agree():
    assert CHAIN.entropy() == pytest.approx(TABLE.entropy(), abs=1e-9)
    assert CHAIN.entropy() == pytest.approx(-TABLE.table @ CHAIN.log_prob(TABLE.sequences), abs=1e-9)
    assert Enumerable(np.full(9, 1 / 9), 3, 2).entropy() == pytest.approx(np.log(9))


def test_zero_probabilities_have_finite_logits():
    language = Enumerable(np.array([0.5, 0, 0, 0.5]), 2, 2)
    assert language.entropy() == pytest.approx(np.log(2))
    probs = probabilities(language, np.array([[2, 2], [0, 2], [2, 1], [0, 1]]), 2)[..., :2]
    np.testing.assert_allclose(probs[:3], [[[0.5, 0.5]] * 2, [[1, 0], [1, 0]], [[0, 1], [0, 1]]], atol=1e-6)


@pytest.mark.parametrize("language", [CHAIN, TABLE], ids=["chain", "table"])
def test_samples_follow_the_distribution(language):
    tokens = language.sample(jax.random.key(5), 4000)
    floor = TABLE.total_variation_floor(4000)
    assert TABLE.total_variation(tokens) < 1.3 * floor
    # Shuffled columns have the same unigrams without the dependence, which the distance must detect.
    shuffled = np.random.default_rng(0).permuted(np.asarray(tokens), axis=0)
    assert TABLE.total_variation(shuffled) > 3 * floor
    assert CHAIN.ngram_total_variation(tokens, 2) < 0.02 < CHAIN.ngram_total_variation(shuffled, 2)
    assert CHAIN.ngram_total_variation(shuffled, 1) < 0.02


def test_ngrams_of_a_chain_that_is_not_stationary():
    chain = Markov(np.array([1.0, 0, 0]), CHAIN.transition, 5)
    table = chain.enumerate()
    pairs = np.zeros((3, 3))
    for probability, row in zip(table.table, table.sequences, strict=True):
        np.add.at(pairs, (row[:-1], row[1:]), probability / 4)
    np.testing.assert_allclose(chain.ngrams(2), pairs, atol=1e-12)


def test_random_denoiser_depends_on_its_inputs():
    tokens, time = jnp.array([[0, 1, 2, 0], [0, 1, 2, 1], [0, 1, 2, 1]]), jnp.array([0.3, 0.3, 0.5])
    causal, full = (
        np.asarray(jax.jit(random_denoiser(jax.random.key(0), 3, causal=causal))(tokens, time))
        for causal in (True, False)
    )
    np.testing.assert_array_equal(causal[0, :3], causal[1, :3])
    np.testing.assert_array_equal(causal[1], causal[2])
    assert not np.allclose(causal[0, 3], causal[1, 3])
    assert not np.allclose(full[0, 0], full[1, 0]) and not np.allclose(full[1], full[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Enumerable(np.ones(4) / 4, 3, 2), "must have 9 entries"),
        (lambda: Enumerable(np.ones(9), 3, 2), "sum to 1"),
        (lambda: Markov(np.array([0.5, 0.5]), np.ones((2, 2)), 4), "probabilities"),
    ],
)
def test_invalid_tables_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
