"""Partial masking: rates, independence, sub-tokens that are masked together, and their order in the state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules import masking as schedules
from tests.checks import refused, within
from tests.weights import keys_of

CODEC = SubtokenCodec(5, 2)
LOG_LINEAR = schedules.LogLinear()
PROCESS = PartialMaskedDiffusion(CODEC, LOG_LINEAR)
TOGETHER, MIXED = (PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=point) for point in (0.0, 0.5))
M = CODEC.mask_id
SIZE, LENGTH = 400, 50
TOKENS = jnp.broadcast_to(jnp.arange(LENGTH) % 5, (SIZE, LENGTH))


@partial(jax.jit, static_argnums=0)
def corrupt(process, keys, tokens, time):
    return process.corrupt(keys, tokens, time)


def hidden_at(time, process=PROCESS):
    """Return whether each sub-token is masked, [B, L, l], and the state."""
    noisy = np.asarray(corrupt(process, keys_of(SIZE), TOKENS, jnp.broadcast_to(jnp.float32(time), SIZE)))
    return process.split(noisy) == process.mask_id, noisy


def test_states_are_flat_with_the_most_significant_subtoken_first():
    tokens = jnp.array([[3, 1], [4, 2]])
    state = PROCESS.encode(tokens)
    np.testing.assert_array_equal(state, [[1, 0, 0, 1], [1, 1, 0, 2]])
    np.testing.assert_array_equal(PROCESS.split(state)[0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(PROCESS.decode(state), tokens)
    np.testing.assert_array_equal(PROCESS.decode(state.at[0, 2].set(M).at[1, 0].set(2)), [[3, 5], [5, 2]])
    assert (PROCESS.subtokens, PROCESS.mask_id) == (2, 3)


@pytest.mark.parametrize("codec", [CODEC, shuffled_codec(5, 2, 2, every_code=True)], ids=repr)
def test_unmasked_subtokens_are_those_of_the_code(codec):
    process = PartialMaskedDiffusion(codec, LOG_LINEAR)
    hidden, noisy = hidden_at(0.5, process)
    clean = process.encode(TOKENS)
    np.testing.assert_array_equal(process.split(noisy), np.where(hidden, codec.mask_id, process.split(clean)))
    np.testing.assert_array_equal(process.decode(clean), TOKENS)


def test_subtokens_are_masked_independently_at_the_level_of_the_schedule():
    """The log-linear schedule masks 99.9 % at t = 1."""
    for time in (1e-3, 0.25, 0.7, 1.0):
        hidden, _ = hidden_at(time)
        level = 0.999 * time
        for digit in range(2):
            assert within(hidden[..., digit], level, hidden[..., digit].size)
        for pair in (hidden.all(axis=-1), hidden[:, 1:] & hidden[:, :-1]):
            assert within(pair, level**2, pair.size)


def test_subtokens_are_masked_together_above_the_chunk_point():
    """At chunk point zero this holds at all times, 0 included, at the level of the schedule."""
    for time in (0.0, 0.3, 1.0):
        hidden, _ = hidden_at(time, TOGETHER)
        np.testing.assert_array_equal(hidden.any(axis=-1), hidden.all(axis=-1))
        assert within(hidden[..., 0], 0.999 * time, hidden[..., 0].size)
    assert TOGETHER.masks_together(jnp.zeros(1)).all() and not PROCESS.masks_together(jnp.ones(1)).any()
    # The time of each example decides for it; at the chunk point and below it the noise is that of MDM-Prime.
    time = jnp.where(jnp.arange(SIZE) % 2 == 0, 0.5, 0.6)
    (hidden, noisy), (_, prime) = hidden_at(time, MIXED), hidden_at(time)
    np.testing.assert_array_equal(noisy[::2], prime[::2])
    above = hidden[1::2]
    np.testing.assert_array_equal(above.any(axis=-1), above.all(axis=-1))
    assert within(above[..., 0], 0.999 * 0.6, above[..., 0].size)


def test_noise_of_an_example_does_not_depend_on_the_batch():
    for process in (PROCESS, MIXED):
        time = jnp.array([0.2, 0.5, 0.8])
        together = corrupt(process, keys_of(3), TOKENS[:3], time)
        np.testing.assert_array_equal(together[1:2], corrupt(process, keys_of([1]), TOKENS[:1], time[1:2]))
        assert (together[0] != together[2]).any()


def test_one_subtoken_per_token_is_masked_diffusion_bit_for_bit():
    masked, prime = MaskedDiffusion(5, LOG_LINEAR), PartialMaskedDiffusion(SubtokenCodec(5, 1), LOG_LINEAR)
    assert masked.mask_id == prime.mask_id and masked.subtokens == prime.subtokens
    one, other = (corrupt(process, keys_of(SIZE), TOKENS, jnp.full(SIZE, 0.4)) for process in (masked, prime))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("point", [-0.1, 1.5])
def test_chunk_points_outside_zero_to_one_are_rejected(point):
    with refused(r"codec\.chunk_point: must lie in \[0, 1\]"):
        PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=point)
