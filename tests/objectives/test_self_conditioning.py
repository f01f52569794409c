"""The self-conditioning input computed from a prediction, row by row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.self_conditioning import SoftEmbedding
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules.masking import LogLinear

MASK = 3
PROCESS = MaskedDiffusion(MASK, LogLinear())
# Row v of the table is e_v, so that the input is the probabilities themselves.
ONE_HOT = partial(SoftEmbedding, PROCESS, lambda params: jnp.eye(MASK), MASK)
MIXED = jnp.array([0, np.log(2), np.log(3), 5])
SIXTHS = [1 / 6, 1 / 3, 1 / 2]


# Positions: masked, unmasked by the step, unmasked before, masked again.
BEFORE, AFTER = jnp.array([[MASK, MASK, 1, 2]]), jnp.array([[MASK, 0, 1, MASK]])
ZEROS = [0, 0, 0]


def test_rows_of_a_prediction():
    """The mask's class has no mass, and positions that are not masked, or masked again, have zeros."""
    self_conditioning = ONE_HOT()
    logits = jnp.broadcast_to(MIXED[None, None], (1, 4, 4))
    previous = self_conditioning(None, logits, BEFORE, AFTER)
    np.testing.assert_allclose(previous[0], [SIXTHS, ZEROS, ZEROS, ZEROS], rtol=1e-6)
    np.testing.assert_array_equal(self_conditioning.empty(BEFORE), np.zeros((1, 4, MASK)))
    # As in training, where the two states are equal.
    same = self_conditioning(None, logits, BEFORE, BEFORE)[0]
    np.testing.assert_allclose(same, [SIXTHS, SIXTHS, ZEROS, ZEROS], rtol=1e-6)
    assert np.sum(same, axis=1).tolist() == pytest.approx([1, 1, 0, 0])


def test_rows_of_partially_masked_tokens():
    """A token counts as masked, or as masked again, if any of its sub-tokens does.

    Five tokens have two base-3 sub-tokens (mask 3): 0 = 00, 1 = 01, 2 = 02, 3 = 10, 4 = 11.
    """
    process = PartialMaskedDiffusion(SubtokenCodec(5, 2), LogLinear())
    self_conditioning = SoftEmbedding(process, lambda params: jnp.eye(5), 5)
    before = jnp.array([[3, 3, 3, 3, 0, 3, 0, 3, 1, 1, 1, 0]])
    after = jnp.array([[3, 3, 0, 3, 0, 3, 0, 2, 3, 1, 1, 0]])
    previous = self_conditioning(None, jnp.zeros((1, 6, 5)), before, after)
    uniform, filtered, zeros = np.full(5, 0.2), np.array([1, 1, 1, 0, 0]) / 3, np.zeros(5)
    # Sub-tokens that the step unmasked filter the rows.
    np.testing.assert_allclose(previous[0], [uniform, filtered, filtered, zeros, zeros, zeros], rtol=1e-6)
    assert self_conditioning.empty(before).shape == (1, 6, 5)


def test_a_soft_embedding_is_the_mean_of_the_rows_of_the_table():
    """It is exactly a row for a certain prediction."""
    table = jax.random.normal(jax.random.key(0), (MASK, 6))
    self_conditioning = SoftEmbedding(PROCESS, lambda params: params, 6)
    certain = jnp.array([[[0.0, 200, 0, 0], [200, 0, 200, 9]]])
    state = jnp.full((1, 2), MASK)
    previous = self_conditioning(table, certain, state, state)[0]
    np.testing.assert_array_equal(previous[0], table[1])
    np.testing.assert_allclose(previous[1], (table[0] + table[2]) / 2, rtol=1e-6)
