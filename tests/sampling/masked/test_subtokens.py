"""Sampling of partially masked tokens: the reverse kernel, and the distributions of both draws and of samples.

The running example has five tokens of two base-3 sub-tokens, so that four of nine codes have no token.
"""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import subtoken_denoiser
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, first_hitting, random_order_step
from diffusion.sampling.masked.sampler import MaskedSampler, MaskedState
from diffusion.sampling.masked.subtokens import SubtokenDraw, sample_tokens
from diffusion.schedules.masking import Linear, LogLinear
from tests.checks import chi_square, within
from tests.languages import denoiser_of, product_of_marginals
from tests.weights import keys_of

VOCABULARY = 5
CODEC = SubtokenCodec(VOCABULARY, 2)
M, FREE = CODEC.mask_id, VOCABULARY
PROCESS = PartialMaskedDiffusion(CODEC, LogLinear())
UNFILTERED = replace(PROCESS, carry_over=False)
SOFTMAX = np.array([0.011656, 0.031685, 0.086129, 0.234122, 0.636409])
ANCESTRAL = Policy(ancestral_step)


def slope(params, noisy, *rest, **options):
    """Return logits 0 .. 4 for every state."""
    return jnp.broadcast_to(jnp.arange(5.0)[None, None], (len(noisy), noisy.shape[1] // 2, 5))


def busy(params, noisy, *rest, **options):
    """Return logits that depend on the whole state and differ between tokens."""
    context = (jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True))[:, ::2]
    return 4 * jnp.sin(context[..., None] + 2.0 * jnp.arange(5.0)[None, None])


def sampler_of(policy, process=PROCESS, denoiser=slope, independent=False, final="none"):
    return MaskedSampler(
        denoiser, process, policy, SubtokenDraw(process, Draw(process.codec.vocabulary), independent), final
    )


@cache
def compiled(*options):
    """Return `run(keys, prompt, grid)` from tokens to tokens, with one program per shape."""
    sampler = sampler_of(*options)
    run = jax.jit(sampler)
    return lambda keys, prompt, rows: sample_tokens(run, sampler.process, None, keys, prompt, grid=rows)


def blank(size, length=8):
    return jnp.full((size, length), FREE)


def steps_of(steps, length=8, digits=2):
    return grid(PROCESS.schedule, steps, length * digits, end=0.0)


def padded_grid(rows, count):
    """Append steps in which masks stay, so that one program serves every number of steps."""
    last = jax.tree.map(lambda column: jnp.repeat(column[-1:], count - len(column), axis=0), rows)
    last = last._replace(keep_mask_prob=jnp.ones_like(last.keep_mask_prob))
    return jax.tree.map(lambda *columns: jnp.concatenate(columns), rows, last)


# The reverse kernel


def test_one_step_of_the_reverse_kernel():
    """From t = 0.8 to s = 0.6 a sub-token stays masked with probability 0.75, and both are revealed with 0.0625."""
    rows = jax.tree.map(lambda column: column[1:2], steps_of(5))
    np.testing.assert_allclose([rows.time[0], rows.next_time[0]], [0.8, 0.6], rtol=1e-6)
    run = jax.jit(partial(sampler_of(ANCESTRAL), None))
    masked = np.asarray(PROCESS.split(run(keys_of(2000), jnp.full((2000, 16), M), rows).tokens) == M)
    assert within(masked, 0.75, masked.size)
    assert within(~masked.any(axis=-1), 0.0625, masked[..., 0].size)
    assert within(masked.all(axis=-1), 0.5625, masked[..., 0].size)
    assert within(~masked[:, 1:, 0] & ~masked[:, :-1, 1], 0.0625, masked[:, 1:, 0].size)


@pytest.mark.parametrize("digits", [1, 2])
def test_idle_steps_become_rare(digits):
    """The fraction of idle steps is (1 - 1/T)^(L l), which is 0.343609 and 0.118067 for L = T = 8."""
    if digits == 1:
        process = PartialMaskedDiffusion(SubtokenCodec(VOCABULARY, 1), LogLinear())
        run = compiled(ANCESTRAL, process, lambda params, noisy, *rest: jnp.zeros((*noisy.shape, VOCABULARY)))
    else:
        run = compiled(ANCESTRAL)
    samples = run(keys_of(2000), blank(2000), steps_of(8, digits=digits))
    idle = np.asarray(samples.idle) / 8
    assert abs(idle.mean() - {1: 0.343609, 2: 0.118067}[digits]) < 4 * idle.std() / 2000**0.5
    assert (samples.evaluations == 8).all()


def test_one_subtoken_per_token_is_mdlm():
    """Probabilities of proposals are those of MDLM; masks are drawn by the same function."""
    whole, one = MaskedDiffusion(5, LogLinear()), PartialMaskedDiffusion(SubtokenCodec(5, 1), LogLinear())
    state = jnp.full((50, 8), 5).at[:, ::3].set(2)
    logits = jnp.sin(jnp.arange(50 * 8 * 6.0)).reshape(50, 8, 6)
    options = jnp.ones(()), jnp.ones(())
    proposal = jax.jit(SubtokenDraw(one, Draw(5)))(keys_of(50), logits, state, *options)
    expected = whole.log_prob(logits, state, proposal.tokens)
    free = np.asarray(state == 5)
    np.testing.assert_allclose(np.asarray(proposal.log_prob)[free], np.asarray(expected)[free], atol=1e-6)
    np.testing.assert_array_equal(proposal.tokens[~free], state[~free])


# The distributions of the two draws


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_draws_of_whole_tokens_follow_the_network_for_any_number_of_steps(steps):
    samples = compiled(ANCESTRAL)(keys_of(2000, steps), blank(2000), padded_grid(steps_of(steps), 8))
    assert chi_square(samples.tokens, SOFTMAX) < 5
    assert not samples.invalid.any()


def test_independent_draws_in_one_step_lose_the_dependence_of_subtokens():
    """P(4) = 0.870530 x 0.668094, and 7.5 % of the codes have no token."""
    samples = compiled(ANCESTRAL, PROCESS, slope, True)(keys_of(2000), blank(2000), steps_of(1))
    assert within(samples.tokens == 4, 0.581596, 16_000)
    assert within(samples.tokens == FREE, 0.074978, 16_000)
    np.testing.assert_array_equal(samples.invalid, (samples.tokens == FREE).sum(axis=1))


def test_proposals_agree_with_known_subtokens():
    """Known sub-tokens are proposed again, and log_prob is that of their marginals before temperature."""
    state = jnp.array([[0, M, M, 1, M, M, 1, 1]])
    draw = SubtokenDraw(PROCESS, Draw(VOCABULARY))
    logits = slope(None, state, None)
    proposal = jax.jit(draw)(keys_of(1), logits, state, jnp.zeros(()), jnp.ones(()))
    np.testing.assert_array_equal(proposal.tokens, [[0, 2, 1, 1, 1, 1, 1, 1]])
    expected = np.log([1, 0.665241, 0.952574, 1, 0.870530, 0.668094, 1, 1])
    np.testing.assert_allclose(proposal.log_prob, expected[None], atol=2e-6)
    np.testing.assert_array_equal(draw.best(logits, state), proposal.tokens)
    unfiltered = SubtokenDraw(UNFILTERED, Draw(VOCABULARY)).best(logits, state)
    np.testing.assert_array_equal(unfiltered, [[1, 1] * 4])


@pytest.fixture(scope="module")
def strict():
    """Return `run(keys, prompt)` for 200 examples with the filter."""
    return lambda keys, prompt: compiled(ANCESTRAL, PROCESS, busy)(keys, prompt, steps_of(4))


def test_codes_without_a_token_are_counted_and_the_filter_prevents_them(strict):
    loose = compiled(ANCESTRAL, UNFILTERED, busy)(keys_of(200), blank(200), steps_of(4))
    assert loose.invalid.sum() > 50
    np.testing.assert_array_equal(loose.invalid, (loose.tokens == FREE).sum(axis=1))
    samples = strict(keys_of(200), blank(200))
    assert not samples.invalid.any() and len(np.unique(samples.tokens)) == VOCABULARY


def test_tokens_of_the_prompt_are_kept(strict):
    tokens = strict(keys_of(200), blank(200).at[:, 1].set(3).at[:, 4].set(2)).tokens
    assert (tokens[:, 1] == 3).all() and (tokens[:, 4] == 2).all()
    assert len(np.unique(tokens[:, 0])) == VOCABULARY


def test_samples_do_not_depend_on_other_examples(strict):
    """An example depends on its key and not on its row."""
    np.testing.assert_array_equal(
        strict(keys_of(200)[::-1], blank(200)).tokens, strict(keys_of(200), blank(200)).tokens[::-1]
    )


@pytest.mark.parametrize("final", ["argmax", "draw"])
def test_noise_removal_fills_the_remaining_subtokens(final):
    """It fills in the most probable token that agrees with known sub-tokens, or a draw from the softmax."""
    prompt = jnp.full((500, 8, 2), M).at[:, 0].set(jnp.array([[0, 2]])).at[:, 1, 0].set(0)
    state = MaskedState(prompt.reshape(500, -1), None, (), None)
    sampler = sampler_of(ANCESTRAL, PROCESS, slope, False, final)
    run = jax.jit(lambda keys: sampler.finish(None, keys, state, steps_of(4), None))
    tokens = np.asarray(PROCESS.decode(run(keys_of(500))))
    assert (tokens[:, 0] == 2).all() and (tokens[:, 1] < 3).all()
    if final == "draw":
        assert chi_square(tokens[:, 2:], SOFTMAX) < 5
        assert chi_square(tokens[:, 1], np.array([0.090031, 0.244728, 0.665241])) < 5
    else:
        assert (tokens[:, 2:] == 4).all() and (tokens[:, 1] == 2).all()


# The distribution of samples with the exact posterior

LANGUAGE = random_language(0, vocabulary=3, length=3)
SAMPLES = 8192
FLOOR = LANGUAGE.total_variation_floor(SAMPLES)
PAIR = PartialMaskedDiffusion(SubtokenCodec(3, 2), Linear())
EXACT = denoiser_of(subtoken_denoiser(LANGUAGE, PAIR.codec))


def drawn(policy, rows, seed, independent=False):
    run = compiled(policy, PAIR, EXACT, independent)
    return run(keys_of(SAMPLES, seed), jnp.full((SAMPLES, 3), 3), rows)


def at_the_floor(variation, floor=FLOOR):
    return 0.6 * floor < variation < 1.4 * floor


def test_total_variation_of_the_ancestral_sampler_falls_to_the_floor():
    """One step draws the product of the marginals of tokens, because sub-tokens of a token are drawn jointly."""
    variations = []
    for steps in (1, 4, 16, 64):
        tokens = drawn(ANCESTRAL, padded_grid(grid(PAIR.schedule, steps, 6, end=0.0), 64), seed=2).tokens
        variations.append(LANGUAGE.total_variation(tokens))
        if steps == 1:
            product = product_of_marginals(LANGUAGE)
            assert at_the_floor(product.total_variation(tokens), product.total_variation_floor(SAMPLES))
    assert variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[0] > 10 * FLOOR
    assert at_the_floor(variations[3])


@pytest.mark.parametrize(
    ("policy", "independent"),
    [(Policy(random_order_step), True), (first_hitting(Linear()), False)],
    ids=["random order, marginal", "first hitting, token"],
)
def test_one_subtoken_per_step_in_random_order_is_exact(policy, independent):
    """Both draws are then draws of single sub-tokens, and all codes have a token."""
    samples = drawn(policy, grid(PAIR.schedule, 6, 6, end=0.0), 1, independent)
    assert not samples.invalid.any() and not samples.idle.any()
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens))
