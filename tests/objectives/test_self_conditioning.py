"""The self-conditioning input computed from a prediction, row by row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules.masking import LogLinear
from experiments import families

MASK = 3
PROCESS = MaskedDiffusion(MASK, LogLinear())
MODES = ("masked", "recarry", "raw")
# Row v of the table is e_v, so that the input is the probabilities themselves.
ONE_HOT = partial(SoftEmbedding, PROCESS, lambda params: jnp.eye(MASK), MASK)
MIXED = jnp.array([0, np.log(2), np.log(3), 5])
SIXTHS = [1 / 6, 1 / 3, 1 / 2]


# Positions: masked, unmasked by the step, unmasked before, masked again.
BEFORE, AFTER = jnp.array([[MASK, MASK, 1, 2]]), jnp.array([[MASK, 0, 1, MASK]])
ZEROS, FIRST, SECOND = [0, 0, 0], [1, 0, 0], [0, 1, 0]
EXPECTED = {
    "masked": [SIXTHS, ZEROS, ZEROS, ZEROS],
    "recarry": [SIXTHS, FIRST, SECOND, ZEROS],
    "raw": [SIXTHS, SIXTHS, SECOND, ZEROS],
}


@pytest.mark.parametrize("rows", MODES)
def test_rows_of_a_prediction(rows):
    """The mask's class has no mass, and positions that are masked again have zeros."""
    self_conditioning = ONE_HOT(rows=rows)
    logits = jnp.broadcast_to(MIXED[None, None], (1, 4, 4))
    previous = self_conditioning(None, logits, BEFORE, AFTER)
    np.testing.assert_allclose(previous[0], EXPECTED[rows], rtol=1e-6)
    np.testing.assert_array_equal(self_conditioning.empty(BEFORE), np.zeros((1, 4, MASK)))
    # As in training, where the two states are equal.
    same = self_conditioning(None, logits, BEFORE, BEFORE)[0]
    np.testing.assert_allclose(same, [SIXTHS, SIXTHS, *(2 * [ZEROS] if rows == "masked" else [SECOND, [0, 0, 1]])])
    assert np.sum(same, axis=1).tolist() == pytest.approx([1, 1, 0, 0] if rows == "masked" else [1, 1, 1, 1])


@pytest.mark.parametrize("rows", MODES)
def test_only_raw_rows_depend_on_predictions_at_unmasked_positions(rows):
    logits = jax.random.normal(jax.random.key(0), (1, 4, 4))
    changed = logits.at[:, 1:].add(jax.random.normal(jax.random.key(1), (1, 3, 4)))
    self_conditioning = ONE_HOT(rows=rows)
    difference = self_conditioning(None, changed, BEFORE, AFTER) - self_conditioning(None, logits, BEFORE, AFTER)
    change = np.abs(difference).max(axis=-1)[0]
    assert (change > 1e-3).tolist() == [False, rows == "raw", False, False]


@pytest.mark.parametrize("rows", MODES)
def test_rows_of_partially_masked_tokens(rows):
    """A token counts as masked, or as masked again, if any of its sub-tokens does.

    Five tokens have two base-3 sub-tokens (mask 3): 0 = 00, 1 = 01, 2 = 02, 3 = 10, 4 = 11.
    """
    process = PartialMaskedDiffusion(SubtokenCodec(5, 2), LogLinear())
    self_conditioning = SoftEmbedding(process, lambda params: jnp.eye(5), 5, rows)
    before = jnp.array([[3, 3, 3, 3, 0, 3, 0, 3, 1, 1, 1, 0]])
    after = jnp.array([[3, 3, 0, 3, 0, 3, 0, 2, 3, 1, 1, 0]])
    previous = self_conditioning(None, jnp.zeros((1, 6, 5)), before, after)
    uniform, filtered, zeros = np.full(5, 0.2), np.array([1, 1, 1, 0, 0]) / 3, np.zeros(5)
    one_hot = np.eye(5)
    expected = {
        # Sub-tokens that the step unmasked filter the rows, except for raw rows.
        "masked": [uniform, filtered, filtered, zeros, zeros, zeros],
        "recarry": [uniform, filtered, filtered, one_hot[2], zeros, one_hot[3]],
        "raw": [uniform, uniform, filtered, filtered, zeros, one_hot[3]],
    }[rows]
    np.testing.assert_allclose(previous[0], expected, rtol=1e-6)
    assert self_conditioning.empty(before).shape == (1, 6, 5)


def test_a_soft_embedding_is_the_mean_of_the_rows_of_the_table():
    """It is exactly a row for a certain prediction, and a function of c E for every adapter."""
    table = jax.random.normal(jax.random.key(0), (MASK, 6))
    self_conditioning = SoftEmbedding(PROCESS, lambda params: params, 6)
    certain = jnp.array([[[0.0, 200, 0, 0], [200, 0, 200, 9]]])
    state = jnp.full((1, 2), MASK)
    previous = self_conditioning(table, certain, state, state)[0]
    np.testing.assert_array_equal(previous[0], table[1])
    np.testing.assert_allclose(previous[1], (table[0] + table[2]) / 2, rtol=1e-6)
    logits, adapter = jax.random.normal(jax.random.key(1), (1, 2, 4)), jax.random.normal(jax.random.key(2), (6, 6))
    c = ONE_HOT()(None, logits, state, state)
    np.testing.assert_allclose(
        self_conditioning(table, logits, state, state) @ adapter, c @ (table @ adapter), atol=1e-6
    )


def test_rows_of_the_table_after_the_tokens_are_not_used():
    """The table of the U-Net's adapter has a row for the mask."""
    config = tiny(defaults("test", "debug"))
    config.data.update(source="mnist", length=784, tokenizer="values")
    config.model.net, config.memory.adapter = "unet", "table"
    config.unet.update(channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2)
    system = families.system(config, 256)
    denoiser = randomly_self_conditioned(system.denoiser, system.self_conditioning)
    params = jax.eval_shape(system.init, jax.random.key(0))
    assert params["adapter"]["table"].shape == (257, 8)
    shape = jax.eval_shape(denoiser, params, jax.ShapeDtypeStruct((2, 784), jnp.int32), jnp.zeros(2)).shape
    assert shape == (2, 784, 257)


def test_unknown_rows_are_rejected():
    with pytest.raises(ValueError, match=r"memory\.rows: unknown 'all'; known: masked, recarry, raw"):
        ONE_HOT(rows="all")
