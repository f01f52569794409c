"""Draws of tokens: the distribution of the two-stage draw, nucleus sets, and the low-precision rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import draw_two_stage
from diffusion.rng import uniform
from diffusion.sampling.masked.draw import Draw, nucleus_set
from tests.checks import chi_square
from tests.weights import keys_of

ONE = jnp.ones(())


@pytest.mark.parametrize("classes", [2, 5, 37])
def test_two_stage_draw_has_the_softmax_distribution(classes):
    logits = 2 * jax.random.normal(jax.random.key(3), (classes,))
    tokens = jax.jit(draw_two_stage)(keys_of(4), jnp.broadcast_to(logits, (4, 10_000, classes)))
    assert tokens.shape == (4, 10_000) and chi_square(tokens, np.asarray(jax.nn.softmax(logits))) < 5


def test_classes_outside_the_vocabulary_are_never_drawn():
    logits = jnp.zeros((2, 500, 9)).at[..., 6:].set(50.0)
    proposal = Draw(6)(keys_of(2), logits, None, ONE, ONE)
    assert proposal.tokens.max() < 6
    np.testing.assert_allclose(proposal.log_prob, np.log(1 / 6), rtol=1e-5)


@pytest.mark.parametrize(
    ("probs", "rule", "expected"),
    [
        ((0.5, 0.3, 0.15, 0.05), "inclusive", (1, 1, 0, 0)),
        ((0.5, 0.3, 0.15, 0.05), "standard", (1, 1, 1, 0)),
        ((0.95, 0.03, 0.02), "inclusive", (1, 0, 0)),
        ((0.03, 0.95, 0.02), "standard", (0, 1, 0)),
    ],
)
def test_nucleus_sets(probs, rule, expected):
    nucleus = nucleus_set(jnp.log(jnp.array(probs))[None, None], jnp.float32(0.9), rule)
    np.testing.assert_array_equal(nucleus[0, 0], np.array(expected, bool))


def test_nucleus_draws_only_from_the_set_and_reports_the_network_probability():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    proposal = Draw(4, nucleus="inclusive")(
        keys_of(2), jnp.broadcast_to(logits, (2, 2000, 4)), None, ONE, jnp.float32(0.9)
    )
    share = float((proposal.tokens == 0).mean())
    assert set(np.unique(proposal.tokens)) == {0, 1}
    assert abs(share - 0.625) < 4 * (0.625 * 0.375 / 4000) ** 0.5
    np.testing.assert_allclose(proposal.log_prob[proposal.tokens == 1], np.log(0.3), rtol=1e-5)


def test_temperature_zero_is_greedy():
    logits = jnp.broadcast_to(jnp.array([0.1, 0.3, 0.2]), (1, 50, 3))
    assert (Draw(3)(keys_of(1), logits, None, jnp.zeros(()), ONE).tokens == 1).all()


def test_low_precision_rule_is_the_formula_of_the_public_code():
    logits = jax.random.normal(jax.random.key(5), (2, 7, 6))
    proposal = Draw(6, precision="mdlm_float32")(keys_of(2, 1), logits, None, ONE, ONE)
    noise = np.asarray(uniform(keys_of(2, 1), (7, 6)))
    scores = np.asarray(jax.nn.softmax(logits)) / (1e-10 - np.log(noise + np.float32(1e-10)))
    np.testing.assert_array_equal(proposal.tokens, scores.argmax(-1))
    np.testing.assert_allclose(proposal.race, scores.max(-1), rtol=1e-5)
