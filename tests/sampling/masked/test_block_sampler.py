"""Block-by-block sampling under exact denoisers: distribution, limits, prompts, keys and cost."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import fold
from diffusion.sampling.masked.block_sampler import sample_blocks
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear
from tests.checks import optimized, refused
from tests.sampling.masked.exact import FLOOR, LANGUAGE, LENGTH, MASK, SIZE, STEPS, at_the_floor, blank, given, padded
from tests.weights import keys_of


def denoiser(params, noisy, time, cond, memory=None, *, keys=None):
    """The language's posterior of one block, whose cache is the clean text so far."""
    start, text = cond
    state = jax.lax.dynamic_update_slice_in_dim(text, noisy, start, axis=1)
    return jax.lax.dynamic_slice_in_dim(LANGUAGE.denoise(state, time), start, noisy.shape[1], axis=1)


ONE = MaskedSampler(denoiser, MaskedDiffusion(MASK, Linear()), Policy(ancestral_step), Draw(MASK), "none")


@cache
def program(block):
    def run(keys, prompt, rows):
        return sample_blocks(
            lambda keys, piece, cond: ONE(None, keys, piece, rows, cond),
            lambda tokens, start, text: jax.lax.dynamic_update_slice_in_dim(text, tokens, start, axis=1),
            jnp.full(prompt.shape, MASK, jnp.int32),
            keys,
            prompt,
            block,
        )

    return optimized(run)


def sample(block, steps, prompt=None, keys=None):
    rows = grid(Linear(), steps, block, end=0.0)
    keys = keys_of(SIZE) if keys is None else keys
    return program(block)(keys, blank() if prompt is None else prompt, padded(rows) if block == 2 else rows)


def test_the_distribution_is_that_of_the_language():
    """Blocks of one token need one step; longer ones draw products of marginals until steps are many."""
    assert at_the_floor(LANGUAGE.total_variation(sample(1, 1).tokens))
    few, many = (LANGUAGE.total_variation(sample(2, steps).tokens) for steps in (1, STEPS))
    assert few > 2 * FLOOR and at_the_floor(many)


def test_one_block_is_the_masked_sampler():
    rows = grid(Linear(), 4, LENGTH, end=0.0)
    expected = optimized(lambda keys, prompt: ONE(None, fold(keys, 0), prompt, rows, (jnp.int32(0), prompt)))
    tokens = sample(LENGTH, 4, blank(64), keys_of(64)).tokens
    np.testing.assert_array_equal(tokens, expected(keys_of(64), blank(64)).tokens)


def test_prompts_stay_and_condition_what_follows():
    first = int(LANGUAGE.sequences[np.argmax(LANGUAGE.table), 0])
    tokens = np.asarray(sample(2, STEPS, blank().at[:, 0].set(first)).tokens)
    assert (tokens[:, 0] == first).all()
    rest, _ = given({0: first})
    assert at_the_floor(rest.total_variation(tokens[:, 1:]), rest.total_variation_floor(SIZE))


def test_cost_and_batches():
    """Per block there are the steps and the evaluation that fills the cache."""
    whole = sample(2, STEPS)
    assert (whole.evaluations == 2 * (STEPS + 1)).all()
    reversed_tokens = sample(2, STEPS, keys=keys_of(SIZE)[::-1]).tokens[::-1]
    np.testing.assert_array_equal(reversed_tokens, whole.tokens)
    with refused(r"sample\.length: 4 must be a multiple of process\.block = 3"):
        sample_blocks(lambda *_: None, lambda *_: None, None, keys_of(2), blank(2), 3)
