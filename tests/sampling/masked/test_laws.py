"""Distributions of samplers with exact denoisers, compared with the language in total variation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from diffusion.oracles.markov import random_chain
from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import first_hitting
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.sampling.sequences.autoregressive import AutoregressiveSampler
from diffusion.schedules.masking import Cosine, Linear, LogLinear
from diffusion.train.mesh import make_mesh
from tests.checks import optimized
from tests.languages import denoiser_of, distance, product_of_marginals
from tests.sampling.masked.exact import (
    FLOOR,
    LANGUAGE,
    LENGTH,
    MASK,
    POLICIES,
    SIZE,
    VOCABULARY,
    at_the_floor,
    blank,
    drawn,
    given,
    run,
)
from tests.weights import keys_of

PRODUCT = product_of_marginals(LANGUAGE)


@pytest.mark.parametrize("policy", ["ancestral", "random_order", "confidence"])
def test_one_step_draws_the_product_of_marginals(policy):
    """It differs from the language by 0.47, and the sampling noise is 0.03."""
    assert FLOOR < 0.035 and distance(LANGUAGE, PRODUCT) > 12 * FLOOR
    tokens = drawn(policy, 1)
    assert at_the_floor(PRODUCT.total_variation(tokens), PRODUCT.total_variation_floor(SIZE))
    assert abs(LANGUAGE.total_variation(tokens) - distance(LANGUAGE, PRODUCT)) < FLOOR


@pytest.mark.parametrize("policy", ["random_order", "first_hitting"])
def test_one_position_per_step_in_random_order_is_exact(policy):
    """Law 3 without an error term."""
    assert at_the_floor(LANGUAGE.total_variation(drawn(policy, LENGTH, seed=1)))


def test_total_variation_of_the_ancestral_sampler_falls_to_the_floor():
    """Law 3; the error is of order 1 / steps, the probability that one step reveals two positions."""
    variations = [LANGUAGE.total_variation(drawn("ancestral", steps, seed=2)) for steps in (1, 4, 16, 64)]
    assert variations[0] > 1.5 * variations[1] > 3 * variations[2]
    assert variations[2] > 1.2 * FLOOR
    assert at_the_floor(variations[3])


def test_confidence_decoding_does_not_preserve_the_distribution():
    """The order of positions depends on the drawn tokens."""
    assert LANGUAGE.total_variation(drawn("confidence", LENGTH)) > 5 * FLOOR


def test_left_to_right_is_exact():
    """The distribution without and with a prompt, and at another temperature, with one compiled program."""

    def decode(params, token, position, inputs):
        """Return the logits given the prefix, which is the cache."""
        inputs = jax.lax.dynamic_update_slice(inputs, token[:, None], (0, position))
        logits = LANGUAGE.next_token(inputs, jnp.zeros(len(inputs)))
        return jax.lax.dynamic_slice_in_dim(logits, position, 1, axis=1)[:, 0], inputs

    sampler = AutoregressiveSampler(
        lambda size: jnp.zeros((size, LENGTH), jnp.int32), decode, Draw(VOCABULARY), VOCABULARY
    )
    sample = optimized(partial(sampler, None))
    samples = sample(keys_of(SIZE), blank(), 1.0)
    assert at_the_floor(LANGUAGE.total_variation(samples.tokens))
    assert (samples.evaluations == LENGTH).all() and not samples.idle.any()

    prompted = sample(keys_of(SIZE), blank().at[:, :2].set(1), 1.0).tokens
    assert (prompted[:, :2] == 1).all()
    rest, _ = given({0: 1, 1: 1})
    assert rest.total_variation(prompted[:, 2:]) < 2 * rest.total_variation_floor(SIZE)

    first = np.asarray(sample(keys_of(SIZE), blank(), 0.5).tokens)[:, 0]
    squared = LANGUAGE.table.reshape(VOCABULARY, -1).sum(axis=1) ** 2
    share = np.bincount(first, minlength=VOCABULARY) / SIZE
    np.testing.assert_allclose(share, squared / squared.sum(), atol=4.5 * 0.5 / SIZE**0.5)


@pytest.mark.parametrize(("policy", "steps"), [("random_order", LENGTH), ("first_hitting", LENGTH), ("ancestral", 64)])
def test_infilling_draws_from_the_exact_conditional(policy, steps):
    """With positions 1 and 2 in the prompt, samples follow p(x^0, x^3 | x^1, x^2)."""
    prompt = blank().at[:, 1].set(2).at[:, 2].set(0)
    tokens = np.asarray(run(policy, keys_of(SIZE, 3), prompt, steps))
    assert (tokens[:, 1] == 2).all() and (tokens[:, 2] == 0).all()
    rest, ends = given({1: 2, 2: 0})
    floor = rest.total_variation_floor(SIZE)
    assert rest.total_variation(tokens[:, [0, 3]]) < 2 * floor
    assert distance(ends, rest) > 10 * floor, "a sampler that ignores the prompt would have these ends"


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_is_a_power_of_the_probabilities(temperature):
    tokens = drawn("ancestral", 1, temperature=temperature)
    product = product_of_marginals(LANGUAGE, 1 / temperature)
    assert at_the_floor(product.total_variation(tokens), product.total_variation_floor(SIZE))
    assert distance(product, PRODUCT) > 3 * FLOOR


CHAIN = random_chain(2, vocabulary=4, length=256)


@pytest.mark.parametrize(("policy", "steps"), [("ancestral", 256), ("first_hitting", 256), ("ancestral", 2)])
def test_bigrams_of_a_long_chain(policy, steps):
    """Exact samples measure 0.015 to 0.026, and revealing two neighbors in one of 256 steps adds at most 1 / 256."""
    bound, size = 0.03, 32
    tokens = run(policy, keys_of(size), jnp.full((size, 256), 4), steps, CHAIN, 256)
    variation = CHAIN.ngram_total_variation(tokens, 2)
    assert variation > 3 * bound if steps == 2 else variation < bound


def times_seen(policy, rows, final, prompt, schedule):
    """Return (number of masks [B], time [B]) of all evaluations of a sampler, in order."""
    seen = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        jax.debug.callback(lambda *pair: seen.append(pair), (noisy == MASK).sum(axis=1), time, ordered=True)
        return jnp.zeros((*noisy.shape, MASK + 1))

    sampler = MaskedSampler(denoiser, MaskedDiffusion(MASK, schedule), policy, Draw(MASK), final)
    jax.block_until_ready(optimized(sampler)(None, keys_of(len(prompt)), prompt, rows))
    jax.effects_barrier()
    masks, times = zip(*seen, strict=True)
    return np.stack(masks), np.stack(times)


@pytest.mark.parametrize("schedule", [LogLinear(epsilon=0.1), Cosine()], ids=str)
def test_first_hitting_evaluates_the_network_at_the_time_of_each_event(schedule):
    """Before event n of F free positions there are F - n masks, at the level of the n-th largest of F uniforms."""
    size, free = 2000, 5
    prompt = jnp.full((size, 8), MASK).at[:, ::3].set(0)
    masks, times = times_seen(first_hitting(schedule), grid(schedule, 8, 8, end=0.0), "none", prompt, schedule)
    np.testing.assert_array_equal(masks, np.broadcast_to(np.maximum(free - np.arange(8), 0)[:, None], masks.shape))
    levels = (1 - schedule.alpha(times.astype(np.float64))) / (1 - schedule.alpha(np.ones(())))
    assert (np.diff(times, axis=0) <= 0).all()
    mean = (free - np.arange(free)) / (free + 1)
    error = np.sqrt(mean * (1 - mean) / (free + 2) / size)
    assert np.all(np.abs(levels[:free].mean(axis=1) - mean) < 4.5 * error)
    np.testing.assert_allclose(times[free:], 0, atol=1e-6, err_msg="the time of clean data after the last event")


def test_other_policies_use_the_times_of_the_grid_and_noise_removal_its_end():
    """There are ceil(L t) masks, of which one remains for noise removal."""
    rows = grid(Linear(), 5, LENGTH, end=1e-3)
    masks, times = times_seen(POLICIES["random_order"], rows, "draw", blank(2), Linear())
    expected = np.linspace(1, 1e-3, 6)
    np.testing.assert_allclose(times, np.repeat(expected[:, None], 2, axis=1), rtol=1e-5)
    np.testing.assert_array_equal(masks[:, 0], np.ceil(expected * LENGTH - 1e-9))


@pytest.mark.parametrize("policy", ["ancestral", "first_hitting"])
def test_samples_are_the_same_on_eight_devices(policy):
    """Law 7, with keys and prompts sharded over ("data", "fsdp")."""
    over = NamedSharding(make_mesh(2, 4, 1), P(("data", "fsdp")))
    spread = run(policy, *jax.device_put((keys_of(64), blank(64)), over), LENGTH)
    assert len(spread.sharding.device_set) == 8 and spread.sharding.shard_shape(spread.shape) == (8, LENGTH)
    np.testing.assert_array_equal(drawn(policy, LENGTH)[:64], spread)


def test_compiled_sampler_has_no_transfer_between_host_and_device():
    """Law 8."""
    denoiser, process = denoiser_of(LANGUAGE.denoise), MaskedDiffusion(MASK, Linear())
    run = optimized(partial(MaskedSampler(denoiser, process, POLICIES["ancestral"], Draw(MASK)), None))
    inputs = keys_of(8), blank(8), grid(Linear(), LENGTH, LENGTH)
    before = run(*inputs).tokens
    with jax.transfer_guard("disallow"):
        after = run(*inputs).tokens
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            run(inputs[0], np.full((8, LENGTH), MASK, np.int32), inputs[2])
    np.testing.assert_array_equal(before, after)
