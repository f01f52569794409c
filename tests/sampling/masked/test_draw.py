"""Draws of tokens: the distribution of the two-stage draw, nucleus sets, and the low-precision rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import draw_two_stage
from diffusion.rng import uniform
from diffusion.sampling.masked.draw import Draw, nucleus_set
from tests.checks import chi_square, optimized, within
from tests.weights import keys_of

ONE = jnp.ones(())


def draw_of(keys, logits, threshold=1.0, **options):
    """Return draws from the first 4 classes."""
    return optimized(Draw(4, **options))(keys, logits, None, ONE, jnp.float32(threshold))


@pytest.mark.parametrize("classes", [2, 37])
def test_two_stage_draw_has_the_softmax_distribution(classes):
    logits = 2 * jax.random.normal(jax.random.key(3), (classes,))
    tokens = optimized(draw_two_stage)(keys_of(4), jnp.broadcast_to(logits, (4, 10_000, classes)))
    assert tokens.shape == (4, 10_000) and chi_square(tokens, np.asarray(jax.nn.softmax(logits))) < 5


def test_classes_outside_the_vocabulary_are_never_drawn():
    proposal = draw_of(keys_of(2), jnp.zeros((2, 2000, 6)).at[..., 4:].set(50.0))
    assert proposal.tokens.max() < 4
    np.testing.assert_allclose(proposal.log_prob, np.log(1 / 4), rtol=1e-5)


@pytest.mark.parametrize(
    ("probs", "rule", "expected"),
    [
        ((0.5, 0.3, 0.15, 0.05), "inclusive", (1, 1, 0, 0)),
        ((0.5, 0.3, 0.15, 0.05), "standard", (1, 1, 1, 0)),
        ((0.94, 0.03, 0.02, 0.01), "inclusive", (1, 0, 0, 0)),
        ((0.03, 0.94, 0.02, 0.01), "standard", (0, 1, 0, 0)),
    ],
)
def test_nucleus_sets(probs, rule, expected):
    nucleus = nucleus_set(jnp.log(jnp.array(probs))[None, None], jnp.float32(0.9), rule)
    np.testing.assert_array_equal(nucleus[0, 0], np.array(expected, bool))


def test_nucleus_draws_only_from_the_set_and_reports_the_network_probability():
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05])), (2, 2000, 4))
    proposal = draw_of(keys_of(2), logits, 0.9, nucleus="inclusive")
    assert set(np.unique(proposal.tokens)) == {0, 1}
    assert within(np.asarray(proposal.tokens) == 0, 0.625, 4000)
    np.testing.assert_allclose(proposal.log_prob[proposal.tokens == 1], np.log(0.3), rtol=1e-5)


def test_renormalized_confidence_is_that_of_the_nucleus():
    """.434 and not .387: with probabilities .387, .3, .205, .108 the nucleus of .9 holds the first three."""
    logits = jnp.broadcast_to(jnp.log(jnp.array([0.387, 0.3, 0.205, 0.108])), (2, 200, 4))
    for renormalized, expected in ((True, 0.387 / 0.892), (False, 0.387)):
        proposal = draw_of(keys_of(2), logits, 0.9, nucleus="inclusive", renormalized=renormalized)
        np.testing.assert_allclose(np.exp(proposal.log_prob[proposal.tokens == 0]), expected, rtol=1e-4)
    assert abs(0.387 / 0.892 - 0.434) < 1e-3


def test_noised_confidence_without_temperature_is_that_of_the_raw_logits():
    logits = jax.random.normal(jax.random.key(5), (2, 7, 4))
    proposal = optimized(Draw(4, noised=True))(keys_of(2), logits, None, jnp.zeros(()), ONE)
    np.testing.assert_array_equal(proposal.tokens, logits.argmax(-1))
    np.testing.assert_allclose(proposal.log_prob, jax.nn.log_softmax(logits).max(-1), rtol=1e-5)


def test_margin_is_the_difference_of_the_two_largest_log_probabilities():
    """log .5 - log .3 without noise; the mask, the last class, does not count."""
    probs = jnp.array([0.1, 0.5, 0.3, 0.1, 0.9])
    logits, options = jnp.broadcast_to(jnp.log(probs), (2, 7, 5)), {"noised": True, "margin": True}
    proposal = optimized(Draw(4, **options))(keys_of(2), logits, None, jnp.zeros(()), ONE)
    assert (proposal.tokens == 1).all()
    np.testing.assert_allclose(proposal.log_prob, np.log(0.5 / 0.3), rtol=1e-5)
    tokens, noised, _ = Draw(4, **options).tokens(keys_of(2), logits, ONE, ONE)
    top = -np.sort(-np.asarray(noised), axis=-1)
    drawn = draw_of(keys_of(2), logits, **options)
    np.testing.assert_array_equal(drawn.tokens, tokens)
    np.testing.assert_allclose(drawn.log_prob, top[..., 0] - top[..., 1], rtol=1e-5)


def test_low_precision_rule_is_the_formula_of_the_public_code():
    logits = jax.random.normal(jax.random.key(5), (2, 7, 4))
    proposal = draw_of(keys_of(2, 1), logits, precision="mdlm_float32")
    noise = np.asarray(uniform(keys_of(2, 1), (7, 4)))
    scores = np.asarray(jax.nn.softmax(logits)) / (1e-10 - np.log(noise + np.float32(1e-10)))
    np.testing.assert_array_equal(proposal.tokens, scores.argmax(-1))
    np.testing.assert_allclose(proposal.race, scores.max(-1), rtol=1e-5)
