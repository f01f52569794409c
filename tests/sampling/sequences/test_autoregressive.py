"""Left-to-right sampling with a cache, compared with full forward passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.attention_masks import Causal
from diffusion.nets.dit import DiT
from diffusion.objectives.autoregressive import shift_right
from diffusion.rng import fold
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.sequences.autoregressive import AutoregressiveSampler
from tests.weights import keys_of, randomized

MASK, LENGTH, SIZE = 11, 8, 4
NET = DiT(MASK + 1, hidden=16, blocks=2, heads=2, mask=Causal(), adaln=False, dropout=0.0)
DRAW = Draw(MASK, nucleus="standard")
SAMPLER = AutoregressiveSampler(
    lambda size: NET.init_cache(size, LENGTH),
    lambda params, *inputs: NET.apply({"params": params}, *inputs, method="decode"),
    DRAW,
    MASK,
)
sample = jax.jit(SAMPLER)
OPTIONS = {"exact": (1.0, 1.0), "cold": (0.7, 1.0), "nucleus": (1.0, 0.6)}


@pytest.fixture(scope="module")
def params():
    return randomized(lambda key: NET.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"], 0.4)


def blank(size=SIZE):
    return jnp.full((size, LENGTH), MASK, jnp.int32)


@jax.jit
def without_cache(params, keys, prompt, temperature, nucleus):
    """Draw every token from a forward pass over the whole prefix."""

    def step(position, tokens):
        logits = NET.apply({"params": params}, shift_right(tokens, MASK))
        row = jax.lax.dynamic_slice_in_dim(logits, position, 1, axis=1)
        drawn = DRAW(fold(keys, position), row, None, temperature, nucleus).tokens
        known = jax.lax.dynamic_slice_in_dim(prompt, position, 1, axis=1)
        return jax.lax.dynamic_update_slice(tokens, jnp.where(known == MASK, drawn, known), (0, position))

    return jax.lax.fori_loop(0, LENGTH, step, jnp.zeros_like(prompt))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("prompted", [False, True])
def test_cached_sampling_is_sampling_from_full_forward_passes(params, name, prompted):
    prompt = blank().at[:, jnp.array([0, 1, 5])].set(3) if prompted else blank()
    options = jnp.array(OPTIONS[name])
    expected = without_cache(params, keys_of(SIZE), prompt, *options)
    samples = sample(params, keys_of(SIZE), prompt, *options)
    np.testing.assert_array_equal(samples.tokens, expected)
    assert len(np.unique(samples.tokens)) > 2 and (samples.tokens < MASK).all()
    assert (samples.evaluations == LENGTH).all()


def test_prompt_is_preserved_and_changes_only_later_tokens(params):
    free = sample(params, keys_of(SIZE), blank(), 1.0, 1.0).tokens
    known = (free[:, 4] + 1) % MASK
    changed = sample(params, keys_of(SIZE), blank().at[:, 4].set(known), 1.0, 1.0).tokens
    np.testing.assert_array_equal(changed[:, 4], known)
    np.testing.assert_array_equal(changed[:, :4], free[:, :4])
    assert (changed[:, 5:] != free[:, 5:]).any()
    whole = sample(params, keys_of(SIZE), free, 1.0, 1.0).tokens
    np.testing.assert_array_equal(whole, free)


def test_sample_does_not_depend_on_other_examples(params):
    together = sample(params, keys_of(SIZE), blank(), 1.0, 1.0).tokens
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(sample(params, keys_of(order), blank(), 1.0, 1.0).tokens, together[jnp.array(order)])
    np.testing.assert_array_equal(sample(params, keys_of([2]), blank(1), 1.0, 1.0).tokens, together[2:3])


def test_temperature_zero_is_the_most_probable_continuation(params):
    greedy = sample(params, keys_of(SIZE), blank(), 0.0, 1.0).tokens
    assert (greedy == greedy[:1]).all(), "samples do not depend on keys"
    logits = jax.jit(NET.apply)({"params": params}, shift_right(greedy[:1], MASK))
    np.testing.assert_array_equal(jnp.argmax(logits[..., :MASK], axis=-1), greedy[:1])
