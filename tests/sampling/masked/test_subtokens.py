"""Sampling of partially masked tokens: the reverse kernel, and the distributions of both draws and of samples.

The running example has five tokens of two base-3 sub-tokens, so that four of nine codes have no token.
"""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import subtoken_denoiser
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, first_hitting, random_order_step
from diffusion.sampling.masked.sampler import MaskedSampler, MaskedState
from diffusion.sampling.masked.subtokens import SubtokenDraw, rate_corrector, sample_tokens
from diffusion.schedules.masking import Linear, LogLinear
from tests.checks import chi_square, optimized, within
from tests.languages import denoiser_of, product_of_marginals
from tests.sampling.masked.exact import at_the_floor, padded, switched
from tests.weights import keys_of

VOCABULARY, LENGTH, STEPS, SIZE = 5, 8, 8, 2000
CODEC = SubtokenCodec(VOCABULARY, 2)
M, FREE = CODEC.mask_id, VOCABULARY
PROCESS = PartialMaskedDiffusion(CODEC, LogLinear())
UNFILTERED = replace(PROCESS, carry_over=False)
SOFTMAX = np.array([0.011656, 0.031685, 0.086129, 0.234122, 0.636409])
KEYS, MASKS = keys_of(SIZE), jnp.full((SIZE, 2 * LENGTH), M)


def slope(noisy, time):
    """Return logits 0 .. 4 for every state."""
    return jnp.broadcast_to(jnp.arange(5.0)[None, None], (len(noisy), noisy.shape[1] // 2, 5))


@cache
def sampler_of(process=PROCESS, independent=False, final="none"):
    """Return an ancestral sampler and its program."""
    draw = SubtokenDraw(process, Draw(VOCABULARY), independent)
    sampler = MaskedSampler(denoiser_of(slope), process, Policy(ancestral_step), draw, final)
    return sampler, optimized(sampler)


def tokens_of(steps, keys=KEYS, process=PROCESS, independent=False):
    rows, blank = padded(grid(process.schedule, steps, 2 * LENGTH, end=0.0), STEPS), np.full((SIZE, LENGTH), FREE)
    return sample_tokens(sampler_of(process, independent)[1], process, None, keys, blank, grid=rows)


# The reverse kernel


def test_one_step_of_the_reverse_kernel():
    """From t = 0.8 to s = 0.6 a sub-token stays masked with probability 0.75, and both are revealed with 0.0625."""
    row = jax.tree.map(lambda column: column[1:2], grid(PROCESS.schedule, 5, 2 * LENGTH, end=0.0))
    np.testing.assert_allclose([row.time[0], row.next_time[0]], [0.8, 0.6], rtol=1e-6)
    rows = padded(row, STEPS)
    rows = rows._replace(keep_mask_prob=np.where(np.arange(STEPS) == 0, row.keep_mask_prob, 1))
    masked = np.asarray(PROCESS.split(sampler_of()[1](None, KEYS, MASKS, rows).tokens) == M)
    assert within(masked, 0.75, masked.size)
    assert within(~masked.any(axis=-1), 0.0625, masked[..., 0].size)
    assert within(masked.all(axis=-1), 0.5625, masked[..., 0].size)
    assert within(~masked[:, 1:, 0] & ~masked[:, :-1, 1], 0.0625, masked[:, 1:, 0].size)


def test_idle_steps_become_rare():
    """The fraction of idle steps is (1 - 1/T)^(L l), which is 0.118067 for L = T = 8 and two sub-tokens."""
    samples = tokens_of(STEPS)
    idle = np.asarray(samples.idle) / STEPS
    assert abs(idle.mean() - 0.118067) < 4 * idle.std() / SIZE**0.5
    assert (samples.evaluations == STEPS).all()


# The distributions of the two draws


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_draws_of_whole_tokens_follow_the_network_for_any_number_of_steps(steps):
    samples = tokens_of(steps, keys_of(SIZE, steps))
    assert chi_square(samples.tokens, SOFTMAX) < 5
    assert not samples.invalid.any()


def test_independent_draws_in_one_step_lose_the_dependence_of_subtokens():
    """P(4) = 0.870530 x 0.668094, and 7.5 % of the codes have no token."""
    samples = tokens_of(1, independent=True)
    assert within(samples.tokens == 4, 0.581596, 16_000)
    assert within(samples.tokens == FREE, 0.074978, 16_000)
    np.testing.assert_array_equal(samples.invalid, (samples.tokens == FREE).sum(axis=1))


def test_without_the_filter_codes_have_no_token_and_are_counted():
    samples = tokens_of(4, process=UNFILTERED)
    assert samples.invalid.sum() > 50
    np.testing.assert_array_equal(samples.invalid, (samples.tokens == FREE).sum(axis=1))


def test_proposals_agree_with_known_subtokens():
    """Known sub-tokens are proposed again, and log_prob is that of their marginals before temperature."""
    state = jnp.array([[0, M, M, 1, M, M, 1, 1]])
    draw, logits = SubtokenDraw(PROCESS, Draw(VOCABULARY)), slope(state, None)
    proposal = optimized(draw)(keys_of(1), logits, state, jnp.zeros(()), jnp.ones(()))
    np.testing.assert_array_equal(proposal.tokens, [[0, 2, 1, 1, 1, 1, 1, 1]])
    expected = np.log([1, 0.665241, 0.952574, 1, 0.870530, 0.668094, 1, 1])
    np.testing.assert_allclose(proposal.log_prob, expected[None], atol=2e-6)
    np.testing.assert_array_equal(draw.best(logits, state), proposal.tokens)
    unfiltered = SubtokenDraw(UNFILTERED, Draw(VOCABULARY)).best(logits, state)
    np.testing.assert_array_equal(unfiltered, [[1, 1] * 4])


@pytest.mark.parametrize("final", ["argmax", "draw"])
def test_noise_removal_fills_the_remaining_subtokens(final):
    """It fills in the most probable token that agrees with known sub-tokens, or a draw from the softmax."""
    prompt = MASKS.reshape(SIZE, LENGTH, 2).at[:, 0].set(jnp.array([[0, 2]])).at[:, 1, 0].set(0)
    state = MaskedState(prompt.reshape(SIZE, -1), None, (), None)
    sampler, _ = sampler_of(final=final)
    rows = grid(PROCESS.schedule, 4, 2 * LENGTH)
    tokens = np.asarray(PROCESS.decode(optimized(lambda keys: sampler.finish(None, keys, state, rows, None))(KEYS)))
    assert (tokens[:, 0] == 2).all() and (tokens[:, 1] < 3).all()
    if final == "draw":
        assert chi_square(tokens[:, 2:], SOFTMAX) < 5
        assert chi_square(tokens[:, 1], np.array([0.090031, 0.244728, 0.665241])) < 5
    else:
        assert (tokens[:, 2:] == 4).all() and (tokens[:, 1] == 2).all()


# The distribution of samples with the exact posterior

LANGUAGE = random_language(0, vocabulary=3, length=3)
SAMPLES, MANY = 8192, 64
FLOOR = LANGUAGE.total_variation_floor(SAMPLES)
PAIR = PartialMaskedDiffusion(SubtokenCodec(3, 2), Linear())
CORRECT = rate_corrector(PAIR.schedule, np.linspace(1, 0, MANY + 1), 4.0, 1.0, PAIR.mask_id)
POLICIES = {
    "ancestral": Policy(ancestral_step),
    "first hitting": first_hitting(Linear()),
    "corrected": Policy(ancestral_step, correct=CORRECT),
    "random order": Policy(random_order_step),
}


@cache
def exact(independent):
    """Return `run(policy number, keys, prompt, rows)`."""
    denoiser, draw = denoiser_of(subtoken_denoiser(LANGUAGE, PAIR.codec)), SubtokenDraw(PAIR, Draw(3), independent)

    def run(which, keys, prompt, rows):
        policy = switched(which, POLICIES.values())
        return MaskedSampler(denoiser, PAIR, policy, draw, "none")(None, keys, prompt, rows)

    return optimized(run)


def drawn(policy, steps, seed, independent=False):
    def sample(params, keys, prompt, cond=None):
        rows = padded(grid(PAIR.schedule, steps, 6, end=0.0), MANY)
        return exact(independent)(list(POLICIES).index(policy), keys, prompt, rows)

    return sample_tokens(sample, PAIR, None, keys_of(SAMPLES, seed), np.full((SAMPLES, 3), 3))


def test_total_variation_of_the_ancestral_sampler_falls_to_the_floor():
    """One step draws the product of the marginals of tokens, because sub-tokens of a token are drawn jointly."""
    tokens = [drawn("ancestral", steps, seed=2).tokens for steps in (1, 4, 16, 64)]
    product = product_of_marginals(LANGUAGE)
    assert at_the_floor(product.total_variation(tokens[0]), product.total_variation_floor(SAMPLES))
    variations = [LANGUAGE.total_variation(each) for each in tokens]
    assert variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[0] > 10 * FLOOR
    assert at_the_floor(variations[3], FLOOR)


@pytest.mark.parametrize(("policy", "independent"), [("random order", True), ("first hitting", False)])
def test_one_subtoken_per_step_in_random_order_is_exact(policy, independent):
    """Both draws are then draws of single sub-tokens, and all codes have a token."""
    samples = drawn(policy, 6, 1, independent)
    assert not samples.invalid.any() and (samples.idle == MANY - 6).all()
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens), FLOOR)


def test_corrector_preserves_the_distribution():
    """With the exact posterior the corrector changes only the number of changes."""
    samples = drawn("corrected", MANY, 0)
    assert not samples.invalid.any()
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens), FLOOR)
    # Without the corrector a fraction (1 - 1/T)^(L l) of the steps is idle.
    assert samples.idle.mean() < MANY * (1 - 1 / MANY) ** 6 - 2
