"""The exact likelihood of any-order generation: a sum over all orders, normalized, and below every bound."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood.any_order import nll_any_order
from diffusion.likelihood.estimators import bound_continuous
from diffusion.oracles.markov import random_chain
from diffusion.oracles.tables import random_denoiser
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules import masking as schedules

VOCABULARY = 5
TOKENS = MaskedDiffusion(VOCABULARY, schedules.LogLinear())
PRIME = PartialMaskedDiffusion(SubtokenCodec(VOCABULARY, 2), schedules.LogLinear())
PAIRS = jnp.asarray(list(itertools.product(range(VOCABULARY), repeat=2)), jnp.int32)
ONES = jnp.ones(PAIRS.shape)
TABLE = random_denoiser(jax.random.key(0), VOCABULARY, scale=1.5)


def without_time(noisy, time):
    """A denoiser with arbitrary logits [B, 2, C + 1] for every state, the same at all times."""
    return TABLE(noisy, jnp.zeros_like(time))[:, :2]


def score(estimate, process, denoise=without_time, tokens=PAIRS, weights=ONES, size=None):
    noise = draws(jax.random.key(1), "test", 0, size or len(tokens))
    return np.asarray(jax.jit(lambda: estimate(denoise, process, tokens, weights, noise))(), np.float64)


def over_orders(process, tokens, weights=(1, 1)):
    """-log of the mean over all orders of the product of conditionals, by a loop over orders."""
    clean = np.asarray(process.encode(tokens[None]))
    count = clean.shape[1]
    weights = np.repeat(weights, count // 2)

    def conditionals(known):
        noisy = jnp.asarray(np.where([j in known for j in range(count)], clean, process.mask_id))
        return np.asarray(process.log_prob(without_time(noisy, jnp.zeros(1)), noisy, jnp.asarray(clean))[0])

    subsets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count))
    table = {subset: conditionals(subset) for subset in map(frozenset, subsets)}
    total = 0.0
    for order in itertools.permutations(range(count)):
        steps = (table[frozenset(order[:k])][position] * weights[position] for k, position in enumerate(order))
        total += math.exp(sum(steps))
    return -math.log(total / math.factorial(count))


@pytest.mark.parametrize("process", [TOKENS, PRIME, replace(PRIME, carry_over=False)], ids=["tokens", "digits", "free"])
def test_the_likelihood_is_the_sum_over_all_orders(process):
    nats = score(nll_any_order, process)
    for index in (0, 7, 24):
        assert nats[index] == pytest.approx(over_orders(process, PAIRS[index]), abs=1e-5)


@pytest.mark.parametrize("process", [TOKENS, PRIME], ids=["tokens", "digits"])
def test_probabilities_sum_to_one_and_the_bound_is_above(process):
    nats = score(nll_any_order, process)
    assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-5)
    repeats = 2048
    many, ones = jnp.tile(PAIRS, (repeats, 1)), jnp.ones((repeats * len(PAIRS), 2))
    bound = score(bound_continuous, process, tokens=many, weights=ones).reshape(repeats, -1)
    gap, error = bound.mean(axis=0) - nats, bound.std(axis=0) / math.sqrt(repeats)
    assert np.all(gap > -4.5 * error)
    assert gap.mean() > 0.05, "the bound of an arbitrary network is not tight, as its orders disagree"


def test_probabilities_without_the_filter_sum_to_less_than_one():
    """The network gives mass to codes of no token."""
    assert np.exp(-score(nll_any_order, replace(PRIME, carry_over=False))).sum() < 0.99


def test_the_exact_posterior_gives_the_exact_likelihood():
    chain = random_chain(3, vocabulary=4, length=6)
    tokens = chain.sample(jax.random.key(5), 16)
    process = MaskedDiffusion(4, schedules.LogLinear())
    nats = score(nll_any_order, process, chain.denoise, tokens, jnp.ones(tokens.shape))
    np.testing.assert_allclose(nats, -chain.log_prob(tokens), rtol=1e-5)


def test_positions_of_weight_zero_are_revealed_at_no_cost():
    weights = jnp.asarray([[1.0, 0.0]])
    nats = score(nll_any_order, PRIME, tokens=PAIRS[7:8], weights=weights)
    assert nats[0] == pytest.approx(over_orders(PRIME, PAIRS[7], (1, 0)), abs=1e-5)
    assert nats[0] < score(nll_any_order, PRIME)[7]


def test_the_network_reads_the_time_of_its_state():
    calls = []

    def denoise(noisy, time):
        jax.debug.callback(lambda masks, time: calls.append((int(masks), float(time))), (noisy[0] == 5).sum(), time[0])
        return jnp.zeros((*noisy.shape, VOCABULARY + 1))

    nats = score(nll_any_order, replace(TOKENS, schedule=schedules.Linear()), denoise)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(calls), [(1, 0.5), (1, 0.5), (2, 1.0)], rtol=1e-6)
    np.testing.assert_allclose(nats, 2 * math.log(VOCABULARY), rtol=1e-6)


def test_too_many_positions_are_rejected():
    noise = draws(jax.random.key(1), "test", 0, 1)
    with pytest.raises(ValueError, match=r"^evaluate\.estimator: nll_any_order .* N = 14 .*at most 12.*$"):
        nll_any_order(without_time, PRIME, jnp.zeros((1, 7), jnp.int32), jnp.ones((1, 7)), noise)
