"""Left-to-right sampling with a cache, compared with full forward passes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtoken_prefixes import prefixes, restrict
from diffusion.codecs.subtokens import shuffled_codec
from diffusion.nets.attention_masks import Causal
from diffusion.nets.dit import DiT
from diffusion.objectives.autoregressive import shift_right
from diffusion.rng import fold
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.sequences.autoregressive import AutoregressiveSampler, of_codes
from tests.weights import keys_of, randomized

MASK, LENGTH, SIZE = 11, 8, 4
NET = DiT(MASK + 1, hidden=16, blocks=1, heads=2, mask=Causal(), adaln=False, dropout=0.0)
PARAMS = randomized(lambda key: NET.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"], 0.4)
DRAW = Draw(MASK, nucleus="standard")
SAMPLER = AutoregressiveSampler(
    lambda size: NET.init_cache(size, LENGTH),
    lambda params, *inputs: NET.apply({"params": params}, *inputs, method="decode"),
    DRAW,
    MASK,
)
OPTIONS = {"exact": (1.0, 1.0), "cold": (0.7, 1.0), "nucleus": (1.0, 0.6), "greedy": (0.0, 1.0)}
BLANK = jnp.full((SIZE, LENGTH), MASK, jnp.int32)
PROMPT = BLANK.at[:, jnp.array([0, 1, 5])].set(3)
compiled = jax.jit(SAMPLER)


def sample(prompt=BLANK, keys=None, options=OPTIONS["exact"]):
    return compiled(PARAMS, keys_of(SIZE) if keys is None else keys, prompt, *map(jnp.float32, options))


def without_cache(next_logits, keys, prompt, temperature, nucleus):
    """Draw every symbol from a forward pass over the whole prefix."""

    def step(position, tokens):
        logits = next_logits(shift_right(tokens, MASK))
        row = jax.lax.dynamic_slice_in_dim(logits, position, 1, axis=1)
        drawn = DRAW(fold(keys, position), row, None, temperature, nucleus).tokens
        known = jax.lax.dynamic_slice_in_dim(prompt, position, 1, axis=1)
        return jax.lax.dynamic_update_slice(tokens, jnp.where(known == MASK, drawn, known), (0, position))

    return jax.lax.fori_loop(0, LENGTH, step, jnp.zeros_like(prompt))


def next_logits(symbols):
    return NET.apply({"params": PARAMS}, symbols)


reference = jax.jit(partial(without_cache, next_logits))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("prompt", [BLANK, PROMPT], ids=["blank", "prompted"])
def test_cached_sampling_is_sampling_from_full_forward_passes(options, prompt):
    """Temperature 0 gives the most probable continuation, whatever the keys are."""
    samples = sample(prompt, options=options)
    np.testing.assert_array_equal(samples.tokens, reference(keys_of(SIZE), prompt, *map(jnp.float32, options)))
    assert len(np.unique(samples.tokens)) > 1 and (samples.tokens < MASK).all()
    assert (samples.evaluations == LENGTH).all()
    if options == OPTIONS["greedy"]:
        assert (samples.tokens == samples.tokens[:1]).all(), "samples do not depend on keys"


def test_sub_tokens_that_lead_to_no_token_are_not_written():
    """The same network with two sub-tokens per token, of which 20 of 121 codes have no token."""
    codec = shuffled_codec(101, 2, 0, every_code=True)
    init_cache, decode = of_codes(codec, SAMPLER.init_cache, SAMPLER.decode)
    sampler = dataclasses.replace(SAMPLER, init_cache=init_cache, decode=decode)
    prompt = BLANK.at[:, 2:4].set(codec.encode(np.arange(SIZE)))
    inputs = keys_of(SIZE), prompt, *map(jnp.float32, OPTIONS["exact"])

    def allowed_logits(symbols):
        return restrict(codec, next_logits(symbols), prefixes(codec, symbols))

    samples = jax.jit(sampler)(PARAMS, *inputs)
    np.testing.assert_array_equal(samples.tokens, jax.jit(partial(without_cache, allowed_logits))(*inputs))
    tokens = codec.decode(samples.tokens.reshape(SIZE, -1, 2))
    np.testing.assert_array_equal(tokens[:, 1], np.arange(SIZE))
    assert (tokens < 101).all() and (samples.evaluations == LENGTH).all()


def test_prompt_is_preserved_and_changes_only_later_tokens():
    free = sample().tokens
    known = (free[:, 4] + 1) % MASK
    changed = sample(BLANK.at[:, 4].set(known)).tokens
    np.testing.assert_array_equal(changed[:, 4], known)
    np.testing.assert_array_equal(changed[:, :4], free[:, :4])
    assert (changed[:, 5:] != free[:, 5:]).any()
    np.testing.assert_array_equal(sample(free).tokens, free)


def test_sample_does_not_depend_on_other_examples():
    together, order = sample().tokens, np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(sample(keys=keys_of(order)).tokens, together[order])
    np.testing.assert_array_equal(sample(BLANK[:1], keys_of([2])).tokens, together[2:3])


def test_a_network_that_starts_from_the_first_token_writes_the_others_after_it():
    """Greedy tokens are those of full forward passes over the tokens themselves, without a start symbol."""
    sampler = jax.jit(dataclasses.replace(SAMPLER, given_first=True))
    prompt = BLANK.at[:, 0].set(jnp.arange(SIZE))
    samples = sampler(PARAMS, keys_of(SIZE), prompt, jnp.float32(0), jnp.float32(1))
    expected = prompt
    for position in range(1, LENGTH):
        logits = NET.apply({"params": PARAMS}, expected)[:, position - 1, :MASK]
        expected = expected.at[:, position].set(jnp.argmax(logits, axis=-1))
    np.testing.assert_array_equal(samples.tokens, expected)
    assert (samples.evaluations == LENGTH - 1).all()
