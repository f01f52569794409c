"""Law 1 for MDM-Prime: the marginal bound is valid, and exact under the exact posterior; the joint loss is not a bound.

Most values are sums over all states, to which the draws of the estimators must average.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec
from diffusion.likelihood.estimators import BoundSteps, bound_grouped, bound_marginal, joint_ce
from diffusion.oracles.check import estimate_nats
from diffusion.oracles.enumerable import Enumerable
from diffusion.oracles.subtokens import expected_nats, expected_steps_nats, subtoken_denoiser
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules import masking as schedules
from tests.checks import deviation
from tests.languages import constant, lookup

SCHEDULE = schedules.LogLinear()
CODEC = SubtokenCodec(5, 2)
PRIME = PartialMaskedDiffusion(CODEC, SCHEDULE)
FREE = replace(PRIME, carry_over=False)
EVERY = np.arange(5)[:, None]
P = np.array([0.1, 0.2, 0.3, 0.15, 0.25])
ROWS = np.array(
    [
        [0.6, 0.1, 0.1, 0.1, 0.1],
        [0.1, 0.5, 0.2, 0.1, 0.1],
        [0.05, 0.15, 0.5, 0.2, 0.1],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.3, 0.1, 0.1, 0.1, 0.4],
    ]
)
PAIRS = Enumerable((P[:, None] * ROWS).ravel(), 5, 2)


SLOPE = constant(np.arange(5))

# Kraft's inequality.

KRAFT = [
    (PRIME, SLOPE, "marginal", 1.000000),
    (FREE, SLOPE, "marginal", 0.925022),
    (PRIME, SLOPE, "joint", 1.176227),
    (PRIME, constant(np.zeros(5)), "joint", 1.070561),
]


@pytest.mark.parametrize(("process", "denoise", "target", "expected"), KRAFT)
def test_kraft_sums_of_context_free_networks(process, denoise, target, expected):
    total = np.exp(-expected_nats(process, denoise, EVERY, target)).sum()
    assert total == pytest.approx(expected, abs=3e-6)


# 2000 networks, each with independent logits for the 16 states of one token.
COUNT = 2000
TABLES = jnp.asarray(2 * np.random.default_rng(0).normal(size=(COUNT, 16, 5)), jnp.float32)
TOKENS = np.tile(EVERY, (COUNT, 1))


def tables(noisy, time):
    """The denoiser that applies network n to rows 5 n .. 5 n + 4."""
    state = 4 * noisy[:, 0] + noisy[:, 1]
    return TABLES[jnp.arange(len(noisy)) // 5, state][:, None]


def kraft(nats):
    return np.exp(-nats.reshape(COUNT, 5)).sum(axis=1)


def test_the_bound_satisfies_krafts_inequality_for_every_network_and_the_joint_loss_does_not():
    for process in (PRIME, FREE):
        assert kraft(expected_nats(process, tables, TOKENS, "marginal")).max() < 1 + 1e-5
    joint = kraft(expected_nats(PRIME, tables, TOKENS, "joint"))
    assert joint.max() > 1.05 and np.mean(joint > 1 + 1e-5) > 0.01


# Exact posteriors.

COPIES = np.eye(8)[[0, 7]].sum(axis=0) / 2
# The joint loss of two sub-tokens lacks half their mutual information: for p in base 3 that is 0.195626 / 2.
ONE_TOKEN = [
    ("p, base 3", P, SubtokenCodec(5, 2), 1.544480, 1.446667),
    ("uniform, base 3", np.full(5, 0.2), SubtokenCodec(5, 2), 1.609438, 1.550191),
    ("uniform, base 2", np.full(5, 0.2), SubtokenCodec(5, 3), 1.609438, 1.495559),
    ("two copies", np.array([0.5, 0, 0, 0.5]), SubtokenCodec(4, 2), 0.693147, 0.346574),
    ("three copies", COPIES, SubtokenCodec(8, 3), 0.693147, 0.231049),
    ("whole grid", np.full(4, 0.25), SubtokenCodec(4, 2), 1.386294, 1.386294),
]


def mean_nats(language, codec, target):
    process = PartialMaskedDiffusion(codec, SCHEDULE)
    possible = language.table > 0
    nats = expected_nats(process, subtoken_denoiser(language, codec), language.sequences[possible], target)
    return float(language.table[possible] @ nats)


@pytest.mark.parametrize(
    ("table", "codec", "entropy", "joint"), [row[1:] for row in ONE_TOKEN], ids=[r[0] for r in ONE_TOKEN]
)
def test_one_token_under_the_exact_posterior(table, codec, entropy, joint):
    """The bound is the entropy; the joint loss lacks the total correlation of the sub-tokens."""
    language = Enumerable(table, codec.vocabulary, 1)
    assert language.entropy() == pytest.approx(entropy, abs=1e-6)
    assert mean_nats(language, codec, "marginal") == pytest.approx(entropy, abs=3e-6)
    assert mean_nats(language, codec, "joint") == pytest.approx(joint, abs=3e-6)


@pytest.mark.parametrize(
    ("codec", "joint"), [(SubtokenCodec(5, 2), 2.762687), (SubtokenCodec(5, 3), 2.641075)], ids=["base 3", "base 2"]
)
def test_two_correlated_tokens_under_the_exact_posterior(codec, joint):
    assert PAIRS.entropy() == pytest.approx(2.935039, abs=1e-6)
    assert mean_nats(PAIRS, codec, "marginal") == pytest.approx(2.935039, abs=5e-6)
    assert mean_nats(PAIRS, codec, "joint") == pytest.approx(joint, abs=5e-6)


def test_the_bound_under_the_exact_posterior_does_not_depend_on_the_code():
    """The joint loss does."""
    codecs = [CODEC, shuffled_codec(5, 2, 1), shuffled_codec(5, 2, 1, every_code=True)]
    for codec in codecs:
        assert mean_nats(PAIRS, codec, "marginal") == pytest.approx(2.935039, abs=5e-6)
    assert np.ptp([mean_nats(PAIRS, codec, "joint") for codec in codecs]) > 0.01


# Draws of the estimators.


@pytest.mark.parametrize(
    ("estimate", "codec", "expected"),
    [
        (bound_marginal, SubtokenCodec(5, 3), 2.935039),
        (joint_ce, SubtokenCodec(5, 2), 2.762687),
        (bound_grouped, SubtokenCodec(5, 2), 2.935039),
    ],
    ids=["marginal, base 2", "joint, base 3", "grouped"],
)
def test_the_mean_of_draws_is_the_exact_value(estimate, codec, expected):
    """With 1e5 stratified draws under the exact posterior of two correlated tokens."""
    process = PartialMaskedDiffusion(codec, SCHEDULE)
    nats = estimate_nats(estimate, subtoken_denoiser(PAIRS, codec), process, PAIRS.sequences, 4096, jax.random.key(10))
    means = (nats @ PAIRS.table)[:, None]
    assert means.std() < 0.01 * np.sqrt(len(means)) and deviation(means, np.array([expected])) < 3


# T steps of the whole-token sampler.


@pytest.mark.parametrize("steps", [1, 2, 1000])
def test_the_step_bound_of_a_context_free_network_does_not_depend_on_the_number_of_steps(steps):
    """It is -log softmax, as revealed sub-tokens of a token are drawn jointly."""
    levels = np.arange(1, steps + 1) / steps
    assert expected_steps_nats(PRIME, SLOPE, np.array([[4]]), levels)[0] == pytest.approx(0.451914, abs=2e-6)


def test_the_step_bound_converges_to_the_continuous_bound():
    """Under the exact posterior; the bound of one step is the product of the tokens' marginals."""
    denoise = subtoken_denoiser(PAIRS, CODEC)
    nats = {
        steps: PAIRS.table @ expected_steps_nats(PRIME, denoise, PAIRS.sequences, np.arange(1, steps + 1) / steps)
        for steps in (1, 4, 16, 64)
    }
    second = P @ ROWS
    assert nats[1] == pytest.approx(1.544480 - second @ np.log(second), abs=5e-6)
    assert nats[1] > nats[4] + 0.05 > nats[16] + 0.06 > nats[64] + 0.06
    assert nats[64] - 2.935039 == pytest.approx((nats[16] - 2.935039) / 4, rel=0.1)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_mean_of_draws_is_the_step_bound(steps):
    """For every sequence, under an arbitrary network; its Kraft sum is at most 1."""
    denoise = lookup(4, 4, (2, 5), timed=False)
    exact = expected_steps_nats(PRIME, denoise, PAIRS.sequences, np.arange(1, steps + 1) / steps)
    nats = estimate_nats(BoundSteps(steps), denoise, PRIME, PAIRS.sequences, 4096, jax.random.key(2))
    assert deviation(nats, exact) < 4.5
    assert np.exp(-exact).sum() < 1 + 1e-5


# The oracle.


def test_the_posterior_given_partially_masked_tokens_is_the_conditional_probability():
    """A worked example, given the first sub-token of x^1 and the second of x^2; states of no sequence are uniform."""
    denoise = subtoken_denoiser(PAIRS, CODEC)
    m = CODEC.mask_id
    logits = jax.jit(denoise)(jnp.array([[0, m, m, 1], [m, m, m, m], [2, m, m, m]]), jnp.zeros(3))
    joint = PAIRS.table.reshape(5, 5)[:3][:, [1, 4]]
    first, second = np.zeros(5), np.zeros(5)
    first[:3], second[[1, 4]] = joint.sum(axis=1) / joint.sum(), joint.sum(axis=0) / joint.sum()
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], [first, second], atol=1e-6)
    np.testing.assert_allclose(jax.nn.softmax(logits)[1], [P, P @ ROWS], atol=1e-6)
    assert not logits[2].any()
