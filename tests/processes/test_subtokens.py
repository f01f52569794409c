"""Partial masking: rates, independence, sub-tokens that are masked together, and their order in the state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import example_keys
from diffusion.schedules import masking as schedules

CODEC = SubtokenCodec(5, 2)
LOG_LINEAR = schedules.LogLinear()
PROCESS = PartialMaskedDiffusion(CODEC, LOG_LINEAR)
M = CODEC.mask_id
SIZE, LENGTH = 400, 50
TOKENS = jnp.broadcast_to(jnp.arange(LENGTH) % 5, (SIZE, LENGTH))


@partial(jax.jit, static_argnums=0)
def corrupt(process, keys, tokens, time):
    return process.corrupt(keys, tokens, time)


def keys(indices=None, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(SIZE) if indices is None else jnp.asarray(indices))


def hidden_at(time, process=PROCESS, tokens=TOKENS):
    """Return whether each sub-token is masked, [B, L, l], and the state."""
    noisy = corrupt(process, keys(), tokens, jnp.full(SIZE, time))
    return np.asarray(process.split(noisy) == process.mask_id), noisy


def test_states_are_flat_with_the_most_significant_subtoken_first():
    tokens = jnp.array([[3, 1], [4, 2]])
    state = PROCESS.encode(tokens)
    np.testing.assert_array_equal(state, [[1, 0, 0, 1], [1, 1, 0, 2]])
    np.testing.assert_array_equal(PROCESS.split(state)[0], [[1, 0], [0, 1]])
    np.testing.assert_array_equal(PROCESS.decode(state), tokens)
    np.testing.assert_array_equal(PROCESS.decode(state.at[0, 2].set(M).at[1, 0].set(2)), [[3, 5], [5, 2]])
    assert (PROCESS.subtokens, PROCESS.mask_id) == (2, 3)


@pytest.mark.parametrize("codec", [CODEC, shuffled_codec(5, 3, 2), shuffled_codec(5, 2, 2, every_code=True)], ids=repr)
def test_unmasked_subtokens_are_those_of_the_code(codec):
    process = PartialMaskedDiffusion(codec, LOG_LINEAR)
    hidden, noisy = hidden_at(0.5, process)
    clean = process.split(process.encode(TOKENS))
    np.testing.assert_array_equal(process.split(noisy), np.where(hidden, codec.mask_id, clean))
    np.testing.assert_array_equal(process.decode(process.encode(TOKENS)), TOKENS)


@pytest.mark.parametrize("time", [1e-3, 0.25, 0.7, 1.0])
def test_subtokens_are_masked_independently_at_the_level_of_the_schedule(time):
    """The log-linear schedule masks 99.9 % at t = 1."""
    hidden, _ = hidden_at(time)
    level = 0.999 * time
    for expected, events in (
        (level, hidden),
        (level**2, hidden.all(axis=-1)),
        (level**2, hidden[:, 1:] & hidden[:, :-1]),
    ):
        assert abs(events.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / events.size)
    fractions = hidden.mean(axis=(0, 1))
    assert np.all(np.abs(fractions - level) < 4 * np.sqrt(level * (1 - level) / hidden[..., 0].size))


def test_subtokens_are_masked_together_at_chunk_point_zero():
    """This holds at all times, 0 included, at the level of the schedule."""
    grouped = PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=0.0)
    for time in (0.0, 0.3, 1.0):
        hidden, _ = hidden_at(time, grouped)
        np.testing.assert_array_equal(hidden.any(axis=-1), hidden.all(axis=-1))
        level = 0.999 * time
        assert abs(hidden[..., 0].mean() - level) <= 4 * np.sqrt(level * (1 - level) / hidden[..., 0].size)
    assert grouped.masks_together(jnp.zeros(1)).all() and not PROCESS.masks_together(jnp.ones(1)).any()


def test_mixed_noise_masks_together_only_above_the_chunk_point():
    """The time of each example decides for it."""
    mixed = PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=0.5)
    time = jnp.where(jnp.arange(SIZE) % 2 == 0, 0.5, 0.6)
    hidden = np.asarray(mixed.split(corrupt(mixed, keys(), TOKENS, time)) == M)
    half = hidden.any(axis=-1) & ~hidden.all(axis=-1)
    assert not half[1::2].any()
    level = 0.999 * 0.5
    expected = 2 * level * (1 - level)
    assert abs(half[::2].mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / half[::2].size)
    assert abs(hidden[1::2, :, 0].mean() - 0.999 * 0.6) < 4 * np.sqrt(0.24 / half[::2].size)
    # At the chunk point and below it the noise is that of MDM-Prime, bit for bit.
    _, prime = hidden_at(0.5)
    np.testing.assert_array_equal(corrupt(mixed, keys(), TOKENS, time)[::2], prime[::2])


def test_noise_of_an_example_does_not_depend_on_the_batch():
    for process in (PROCESS, PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=0.5)):
        time = jnp.array([0.2, 0.5, 0.8])
        together = corrupt(process, keys(range(3)), TOKENS[:3], time)
        alone = corrupt(process, keys([1]), TOKENS[:1], time[1:2])
        np.testing.assert_array_equal(together[1:2], alone)
        assert (together[0] != together[2]).any()


def test_one_subtoken_per_token_is_masked_diffusion_bit_for_bit():
    masked, prime = MaskedDiffusion(5, LOG_LINEAR), PartialMaskedDiffusion(SubtokenCodec(5, 1), LOG_LINEAR)
    assert masked.mask_id == prime.mask_id and masked.subtokens == prime.subtokens
    time = jnp.full(SIZE, 0.4)
    np.testing.assert_array_equal(corrupt(masked, keys(), TOKENS, time), corrupt(prime, keys(), TOKENS, time))


@pytest.mark.parametrize("point", [-0.1, 1.5])
def test_chunk_points_outside_zero_to_one_are_rejected(point):
    with pytest.raises(ValueError, match=r"codec\.chunk_point: must lie in \[0, 1\]"):
        PartialMaskedDiffusion(CODEC, LOG_LINEAR, chunk_point=point)
