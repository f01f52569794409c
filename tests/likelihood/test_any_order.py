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
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules import masking as schedules
from tests.checks import refused
from tests.languages import lookup

VOCABULARY = 5
TOKENS = MaskedDiffusion(VOCABULARY, schedules.LogLinear())
PRIME = PartialMaskedDiffusion(SubtokenCodec(VOCABULARY, 2), schedules.LogLinear())
FREE = replace(PRIME, carry_over=False)
# Arbitrary networks of tokens and of sub-tokens.
NETWORKS = {1: lookup(6, 2, (2, 6), 1.5, timed=False), 2: lookup(4, 4, (2, 5), 1.5, timed=False)}
PAIRS = np.array(list(itertools.product(range(VOCABULARY), repeat=2)), np.int32)


def score(estimate, process, denoise=None, tokens=PAIRS, weights=None):
    denoise = denoise or NETWORKS[process.subtokens]
    weights = jnp.ones(tokens.shape) if weights is None else jnp.asarray(weights)
    run = jax.jit(lambda noise: estimate(denoise, process, jnp.asarray(tokens), weights, noise))
    return np.asarray(run(draws(jax.random.key(1), "test", 0, len(tokens))), np.float64)


def over_orders(process, tokens, weights=(1, 1)):
    """-log of the mean over all orders of the product of conditionals, by a loop over orders."""
    clean = np.asarray(process.encode(tokens[None]))
    count = clean.shape[1]
    weights = np.repeat(weights, count // 2)

    @jax.jit
    def log_prob(noisy):
        logits = NETWORKS[process.subtokens](noisy, jnp.zeros(len(noisy)))
        return process.log_prob(logits, noisy, jnp.broadcast_to(clean, noisy.shape))

    subsets = [known for size in range(count) for known in itertools.combinations(range(count), size)]
    states = np.array([np.where([j in known for j in range(count)], clean[0], process.mask_id) for known in subsets])
    table = dict(zip(map(frozenset, subsets), np.asarray(log_prob(states), np.float64), strict=True))
    orders = list(itertools.permutations(range(count)))
    steps = [[table[frozenset(o[:k])][place] * weights[place] for k, place in enumerate(o)] for o in orders]
    return -math.log(np.mean(np.exp(np.sum(steps, axis=1))))


@pytest.mark.parametrize("process", [TOKENS, PRIME, FREE], ids=["tokens", "digits", "free"])
def test_the_likelihood_is_the_sum_over_all_orders(process):
    """Probabilities sum to one; without the filter to less, as the network gives mass to codes of no token."""
    nats = score(nll_any_order, process)
    for index in (0, 7, 24):
        assert nats[index] == pytest.approx(over_orders(process, PAIRS[index]), abs=1e-5)
    total = np.exp(-nats).sum()
    assert total < 0.99 if process is FREE else total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("process", [TOKENS, PRIME], ids=["tokens", "digits"])
def test_the_bound_is_above_the_likelihood(process):
    nats, repeats = score(nll_any_order, process), 2048
    bound = score(bound_continuous, process, tokens=np.tile(PAIRS, (repeats, 1))).reshape(repeats, -1)
    gap, error = bound.mean(axis=0) - nats, bound.std(axis=0) / math.sqrt(repeats)
    assert np.all(gap > -4.5 * error)
    assert gap.mean() > 0.05, "the bound of an arbitrary network is not tight, as its orders disagree"


def test_the_exact_posterior_gives_the_exact_likelihood():
    chain = random_chain(3, vocabulary=4, length=6)
    tokens = chain.sample(jax.random.key(5), 16)
    nats = score(nll_any_order, MaskedDiffusion(4, schedules.LogLinear()), chain.denoise, tokens)
    np.testing.assert_allclose(nats, -chain.log_prob(tokens), rtol=1e-5)


def test_positions_of_weight_zero_are_revealed_at_no_cost():
    nats = score(nll_any_order, PRIME, tokens=PAIRS[7:8], weights=[[1.0, 0.0]])
    assert nats[0] == pytest.approx(over_orders(PRIME, PAIRS[7], (1, 0)), abs=1e-5)


def test_the_network_reads_the_time_of_its_state():
    calls = []

    def denoise(noisy, time):
        jax.debug.callback(lambda masks, time: calls.append((int(masks), float(time))), (noisy[0] == 5).sum(), time[0])
        return jnp.zeros((*noisy.shape, VOCABULARY + 1))

    nats = score(nll_any_order, replace(TOKENS, schedule=schedules.LogLinear(epsilon=0.2)), denoise)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(calls), [(1, 0.5), (1, 0.5), (2, 1.0)], rtol=1e-6)
    np.testing.assert_allclose(nats, 2 * math.log(VOCABULARY), rtol=1e-6)


def test_too_many_positions_are_rejected():
    with refused(r"^evaluate\.estimator: nll_any_order .* N = 14 .*at most 12"):
        score(nll_any_order, PRIME, tokens=np.zeros((1, 7), np.int32))
