"""Block-by-block sampling under exact denoisers: distribution, limits, prompts, keys and cost."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles.enumerable import random_language
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import example_keys, fold
from diffusion.sampling.masked.blocks import sample_blocks
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear

VOCABULARY, LENGTH, SIZE = 3, 4, 8192
LANGUAGE = random_language(0, VOCABULARY, LENGTH)
FLOOR = LANGUAGE.total_variation_floor(SIZE)
PROCESS = MaskedDiffusion(VOCABULARY, Linear())


def denoiser(params, noisy, time, cond, memory=None, *, keys=None):
    """The language's posterior of one block, whose cache is the clean text so far."""
    start, text = cond
    state = jax.lax.dynamic_update_slice_in_dim(text, noisy, start, axis=1)
    return jax.lax.dynamic_slice_in_dim(LANGUAGE.denoise(state, time), start, noisy.shape[1], axis=1)


@cache
def sampler(block, steps):
    one = MaskedSampler(denoiser, PROCESS, Policy(ancestral_step), Draw(PROCESS.mask_id), "draw")
    table = grid(Linear(), steps, block)

    def sample(keys, prompt):
        return sample_blocks(
            lambda keys, piece, cond: one(None, keys, piece, table, cond),
            lambda tokens, start, text: jax.lax.dynamic_update_slice_in_dim(text, tokens, start, axis=1),
            jnp.full(prompt.shape, PROCESS.mask_id, jnp.int32),
            keys,
            prompt,
            block,
        )

    return jax.jit(sample), one, table


def keys_of(size=SIZE):
    return example_keys(jax.random.key(0), jnp.arange(size))


def blank(size=SIZE):
    return jnp.full((size, LENGTH), PROCESS.mask_id, jnp.int32)


def test_the_distribution_is_that_of_the_language():
    """Blocks of one token need one step; longer ones draw products of marginals until steps are many."""
    assert LANGUAGE.total_variation(sampler(1, 1)[0](keys_of(), blank()).tokens) < 1.6 * FLOOR
    few, many = (LANGUAGE.total_variation(sampler(2, steps)[0](keys_of(), blank()).tokens) for steps in (1, 64))
    assert few > 2 * FLOOR and many < 1.6 * FLOOR


def test_one_block_is_the_masked_sampler():
    sample, one, table = sampler(LENGTH, 4)
    expected = one(None, fold(keys_of(64), 0), blank(64), table, (jnp.int32(0), blank(64)))
    np.testing.assert_array_equal(sample(keys_of(64), blank(64)).tokens, expected.tokens)


def test_prompts_stay_and_condition_what_follows():
    first = LANGUAGE.sequences[np.argmax(LANGUAGE.table), 0]
    prompt = blank().at[:, 0].set(first)
    tokens = sampler(2, 64)[0](keys_of(), prompt).tokens
    assert (tokens[:, 0] == first).all()
    given = LANGUAGE.sequences[:, 0] == first
    expected = np.where(given, LANGUAGE.table, 0) / LANGUAGE.table[given].sum()
    counts = np.bincount(np.asarray(tokens) @ VOCABULARY ** np.arange(LENGTH)[::-1], minlength=VOCABULARY**LENGTH)
    assert 0.5 * np.abs(counts / SIZE - expected).sum() < 1.6 * FLOOR


def test_cost_and_batches():
    sample = sampler(2, 4)[0]
    whole = sample(keys_of(8), blank(8))
    # Per block: four steps, noise removal, and the evaluation that fills the cache.
    assert (whole.evaluations == 2 * (4 + 1 + 1)).all()
    np.testing.assert_array_equal(sample(keys_of(8)[3:5], blank(2)).tokens, whole.tokens[3:5])
    with pytest.raises(ValueError, match=r"sample\.length: 4 must be a multiple of process\.block = 3"):
        sample_blocks(lambda *_: None, lambda *_: None, None, keys_of(2), blank(2), 3)
