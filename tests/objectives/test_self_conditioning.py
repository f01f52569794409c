"""What is remembered of a prediction, row by row, and denoisers that read it: worked numbers, coins, likelihoods."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults, tiny
from diffusion import build
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules.masking import LogLinear

MASK = 3
PROCESS = MaskedDiffusion(MASK, LogLinear())
MODES = ("masked", "recarry", "raw")
# Row v of the table is e_v, so that a memory reads as the probabilities themselves.
ONE_HOT = partial(SoftEmbedding, PROCESS, lambda params: jnp.eye(MASK), MASK)
MIXED = jnp.array([0, np.log(2), np.log(3), 5])
SIXTHS = [1 / 6, 1 / 3, 1 / 2]


# Positions: still masked, revealed now, known, masked again.
BEFORE, AFTER = jnp.array([[MASK, MASK, 1, 2]]), jnp.array([[MASK, 0, 1, MASK]])
NOTHING, ZERO, ONE = [0, 0, 0], [1, 0, 0], [0, 1, 0]
EXPECTED = {
    "masked": [SIXTHS, NOTHING, NOTHING, NOTHING],
    "recarry": [SIXTHS, ZERO, ONE, NOTHING],
    "raw": [SIXTHS, SIXTHS, ONE, NOTHING],
}


@pytest.mark.parametrize("rows", MODES)
def test_rows_of_a_prediction(rows):
    """The mask class has no mass whatever its logit; what was taken back is forgotten."""
    self_conditioning = ONE_HOT(rows=rows)
    logits = jnp.broadcast_to(MIXED[None, None], (1, 4, 4))
    memory = self_conditioning(None, logits, BEFORE, AFTER)
    np.testing.assert_allclose(memory[0], EXPECTED[rows], rtol=1e-6)
    np.testing.assert_array_equal(self_conditioning.empty(BEFORE), np.zeros((1, 4, MASK)))
    # As in training, where the state is the same before and after: known positions have their token, or nothing.
    same = self_conditioning(None, logits, BEFORE, BEFORE)[0]
    np.testing.assert_allclose(same, [SIXTHS, SIXTHS, *(2 * [NOTHING] if rows == "masked" else [ONE, [0, 0, 1]])])
    assert np.sum(same, axis=1).tolist() == pytest.approx([1, 1, 0, 0] if rows == "masked" else [1, 1, 1, 1])


@pytest.mark.parametrize("rows", MODES)
def test_only_raw_rows_depend_on_the_prediction_of_what_is_known_now(rows):
    logits = jax.random.normal(jax.random.key(0), (1, 4, 4))
    moved = logits.at[:, 1:].add(jax.random.normal(jax.random.key(1), (1, 3, 4)))
    self_conditioning = ONE_HOT(rows=rows)
    change = np.abs(self_conditioning(None, moved, BEFORE, AFTER) - self_conditioning(None, logits, BEFORE, AFTER)).max(
        axis=-1
    )[0]
    assert (change > 1e-3).tolist() == [False, rows == "raw", False, False]


@pytest.mark.parametrize("rows", MODES)
def test_a_token_counts_as_masked_while_a_digit_is_and_forgets_when_one_is_masked_again(rows):
    """Five tokens of two base-3 digits (mask 3): 0 = 00, 1 = 01, 2 = 02, 3 = 10, 4 = 11."""
    process = PartialMaskedDiffusion(SubtokenCodec(5, 2), LogLinear())
    self_conditioning = SoftEmbedding(process, lambda params: jnp.eye(5), 5, rows)
    before = jnp.array([[3, 3, 3, 3, 0, 3, 0, 3, 1, 1, 1, 0]])
    after = jnp.array([[3, 3, 0, 3, 0, 3, 0, 2, 3, 1, 1, 0]])
    memory = self_conditioning(None, jnp.zeros((1, 6, 5)), before, after)
    uniform, filtered, nothing = np.full(5, 0.2), np.array([1, 1, 1, 0, 0]) / 3, np.zeros(5)
    known = np.eye(5)
    expected = {
        # A digit that the step has revealed rules tokens out at once; raw rows know what the prediction knew.
        "masked": [uniform, filtered, filtered, nothing, nothing, nothing],
        "recarry": [uniform, filtered, filtered, known[2], nothing, known[3]],
        "raw": [uniform, uniform, filtered, filtered, nothing, known[3]],
    }[rows]
    np.testing.assert_allclose(memory[0], expected, rtol=1e-6)
    assert self_conditioning.empty(before).shape == (1, 6, 5)


def test_a_soft_embedding_is_the_mean_of_the_tables_rows():
    """Exactly a row for a certain prediction, the mean of two rows for an even one; c E as if c itself were kept."""
    table = jax.random.normal(jax.random.key(0), (MASK, 6))
    self_conditioning = SoftEmbedding(PROCESS, lambda params: params, 6)
    certain = jnp.array([[[0.0, 200, 0, 0], [200, 0, 200, 9]]])
    state = jnp.full((1, 2), MASK)
    memory = self_conditioning(table, certain, state, state)[0]
    np.testing.assert_array_equal(memory[0], table[1])
    np.testing.assert_allclose(memory[1], (table[0] + table[2]) / 2, rtol=1e-6)
    logits, adapter = jax.random.normal(jax.random.key(1), (1, 2, 4)), jax.random.normal(jax.random.key(2), (6, 6))
    c = ONE_HOT()(None, logits, state, state)
    np.testing.assert_allclose(
        self_conditioning(table, logits, state, state) @ adapter, c @ (table @ adapter), atol=1e-6
    )


def test_a_table_with_a_row_for_the_mask_is_cut():
    """A U-Net on whole values predicts the mask's class too, and its adapter's own table has a row of it."""
    config = tiny(defaults("test", "debug"))
    config.data.update(source="mnist", length=784, tokenizer="values")
    config.model.net, config.memory.adapter = "unet", "table"
    config.unet.update(channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2)
    system = build.system(config, 256)
    denoiser = randomly_self_conditioned(system.denoiser, system.self_conditioning)
    params = jax.eval_shape(system.init, jax.random.key(0))
    assert params["adapter"]["table"].shape == (257, 8)
    shape = jax.eval_shape(denoiser, params, jax.ShapeDtypeStruct((2, 784), jnp.int32), jnp.zeros(2)).shape
    assert shape == (2, 784, 257)


def test_unknown_rows_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"memory\.rows: unknown 'all'; known: masked, recarry, raw"):
        ONE_HOT(rows="all")
