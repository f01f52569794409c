"""Law 1: an estimator equals the entropy under the exact denoiser, and its Kraft sum is at most 1 under every one."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import target_log_probs
from diffusion.likelihood.estimators import BoundSteps, bound_continuous, estimator, masked_ce, nll_autoregressive
from diffusion.oracles.check import check_estimator, estimate_cross_entropy, estimate_nats, kraft_sum
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.markov import random_chain
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules import masking as schedules
from tests.checks import deviation
from tests.languages import lookup

LANGUAGE = random_language(0, vocabulary=3, length=3)
PROCESS = MaskedDiffusion(3, schedules.LogLinear())
SCHEDULES = [
    schedules.LogLinear(),
    schedules.LogLinear(epsilon=0.2),
    schedules.Cosine(),
    schedules.Polynomial(),
    schedules.Geometric(),
    schedules.Geometric(low=0.1, high=1.0),
    schedules.Loop(),
]
WRONG, WITH_TIME = lookup(4, 3, (3, 4), 0.7, timed=False), lookup(4, 3, (3, 4), 0.2)


def estimates(estimate, process=PROCESS, denoise=LANGUAGE.denoise, draws_each=2048):
    """Estimates of all sequences, [R, N]."""
    return estimate_nats(estimate, denoise, process, LANGUAGE.sequences, draws_each, jax.random.key(7))


def excess(nats):
    """The mean of the estimate over the language minus the entropy, in standard errors and in nats."""
    value, error = estimate_cross_entropy(nats, -np.log(LANGUAGE.table), LANGUAGE.table, LANGUAGE.entropy())
    return (value - LANGUAGE.entropy()) / max(error, 1e-9), value - LANGUAGE.entropy()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_continuous_bound_equals_the_entropy_for_every_schedule(schedule):
    nats = estimates(bound_continuous, MaskedDiffusion(3, schedule))
    errors, gap = excess(nats)
    assert abs(errors) < 3.5 and abs(gap) < 0.02
    value, error = kraft_sum(nats)
    assert abs(value - 1) < 3.5 * error


@pytest.mark.parametrize("schedule", [SCHEDULES[1], SCHEDULES[5]], ids=str)
def test_bounds_hold_for_denoisers_that_read_time(schedule):
    """For alpha(1) = 0.2 and alpha(0) = 0.9, as errors are most likely at the ends of a schedule."""
    for estimate in (bound_continuous, BoundSteps(3)):
        value, error = kraft_sum(estimates(estimate, MaskedDiffusion(3, schedule), WITH_TIME))
        assert 0.5 < value < 1 + 3.5 * error


def test_the_mean_of_draws_is_the_enumerated_bound():
    """For every sequence, under a wrong denoiser; under the exact one the enumerated bound is the entropy."""
    exact = LANGUAGE.expected_bound(WRONG)
    assert np.sum(np.exp(-exact)) < 1
    assert deviation(estimates(bound_continuous, denoise=WRONG, draws_each=4096), exact) < 4.5
    assert LANGUAGE.table @ LANGUAGE.expected_bound(LANGUAGE.denoise) == pytest.approx(LANGUAGE.entropy(), abs=1e-5)


def test_step_bound_falls_from_the_product_of_marginals_to_the_entropy():
    process = MaskedDiffusion(3, schedules.Cosine())
    nats = {steps: estimates(BoundSteps(steps), process) for steps in (1, 4, 32)}
    marginals = LANGUAGE.denoise(jnp.full((27, 3), 3), jnp.ones(27))
    exact = -target_log_probs(marginals, LANGUAGE.sequences, 3).sum(axis=1)
    np.testing.assert_allclose(nats[1], np.broadcast_to(exact, nats[1].shape), rtol=1e-5)
    gaps = {steps: excess(values)[1] for steps, values in nats.items()}
    assert gaps[1] > gaps[4] + 0.05 > gaps[32] + 0.1
    assert -0.02 < gaps[32] < 0.05


def test_step_bound_is_the_bound_of_the_sampler():
    """For two steps, by brute force: sum_k rho_k E[sum over masked i of -log p] with the sampler's levels."""
    schedule = schedules.LogLinear(epsilon=0.2)
    middle = (1 - float(schedule.alpha(np.array(0.5)))) / 0.8
    denoise = jax.jit(lookup(4, 3, (3, 4), 0.7))
    exact = np.zeros(27)
    for time, level, reveal in ((1.0, 1.0, 1 - middle), (0.5, middle, 1.0)):
        for hidden in map(np.array, product([False, True], repeat=3)):
            prob = np.prod(np.where(hidden, level, 1 - level))
            noisy = jnp.asarray(np.where(hidden, 3, LANGUAGE.sequences))
            log_p = target_log_probs(denoise(noisy, jnp.full(27, time)), LANGUAGE.sequences, 3)
            exact += prob * reveal * -np.asarray(log_p)[:, hidden].sum(axis=1)
    nats = estimates(BoundSteps(2), MaskedDiffusion(3, schedule), denoise, draws_each=4096)
    assert deviation(nats, exact) < 4.5


@pytest.mark.parametrize("schedule", [SCHEDULES[1], SCHEDULES[2], SCHEDULES[5]], ids=str)
def test_networks_read_the_time_of_their_input(schedule):
    """The masked fraction is that of the time; law 1 does not test this."""
    tokens = jnp.zeros((256, 512), jnp.int32)

    @jax.jit
    def inputs(noise):
        calls = []

        def denoise(noisy, time):
            calls.append((jnp.mean(noisy == 3, axis=1), time))
            return jnp.zeros((*noisy.shape, 4))

        for estimate in (bound_continuous, BoundSteps(4)):
            estimate(denoise, MaskedDiffusion(3, schedule), tokens, jnp.ones(tokens.shape), noise)
        return calls

    calls = np.asarray(inputs(draws(jax.random.key(2), "t", 0, 256)), np.float64)
    for masked, time in calls:
        level = (1 - schedule.alpha(time)) / (1 - schedule.alpha(np.ones(())))
        inside = time > 1e-3  # below the level of t = 0 the time is 0
        assert inside.mean() > 0.75
        error = (masked - level)[inside] / np.sqrt(np.maximum(level * (1 - level), 1e-2)[inside] / 512)
        assert np.max(np.abs(error)) < 4.5 and abs(error.mean()) < 0.25
    np.testing.assert_allclose(calls[1, 1] * 4 % 1, 0, atol=1e-6)


def test_the_bound_is_valid_with_padding():
    """With weight 0 at the last position the bound is conditional on its token: there is a Kraft sum for each value."""

    def padded(estimate):
        return lambda denoise, process, tokens, weights, draws: estimate(
            denoise, process, tokens, weights.at[:, -1].set(0), draws
        )

    for estimate in (bound_continuous, BoundSteps(2)):
        nats = estimates(padded(estimate), denoise=WITH_TIME)
        for last in range(3):
            value, error = kraft_sum(nats[:, LANGUAGE.sequences[:, -1] == last])
            assert 0.5 < value < 1 + 3.5 * error


def almost_a_bound(denoise, process, tokens, weights, draws):
    """L times the mean over masked positions at a uniform level: L / (L + 1) of the bound, as masks may be absent."""
    noisy = process.corrupt(draws.keys, tokens, draws.uniform)
    hidden = noisy == process.mask_id
    log_prob = target_log_probs(denoise(noisy, draws.uniform), tokens, process.mask_id)
    return tokens.shape[1] * jnp.sum(-log_prob * hidden, axis=1) / jnp.maximum(hidden.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("estimate", "causal", "bound"),
    [(bound_continuous, False, True), (nll_autoregressive, True, True), (almost_a_bound, False, False)],
)
def test_checks_distinguish_bounds_from_other_numbers(estimate, causal, bound):
    checks = check_estimator(estimate, LANGUAGE, PROCESS, causal=causal, draws_each=2048, tables=2)
    assert all(check.passed for check in checks) == bound
    if not bound:
        assert not checks[0].passed
        assert any(check.quantity == "Kraft sum" and not check.passed for check in checks)
    if causal:
        assert all(check.value == pytest.approx(1, abs=1e-4) for check in checks if check.quantity == "Kraft sum")


def test_the_bound_of_a_long_chain_is_its_entropy():
    chain = random_chain(1, vocabulary=6, length=256)
    process, tokens = MaskedDiffusion(6, schedules.Cosine()), chain.sample(jax.random.key(0), 64)
    probs = np.full(64, 1 / 64)

    def checked(estimate):
        nats = estimate_nats(estimate, chain.denoise, process, tokens, 32, jax.random.key(7))
        return estimate_cross_entropy(nats, -chain.log_prob(tokens), probs, chain.entropy())

    value, error = checked(bound_continuous)
    assert abs(value - chain.entropy()) < 3 * error and error < 0.005 * chain.entropy()
    value, error = checked(masked_ce)
    assert value < chain.entropy() - 10 * error


def test_errors_for_unknown_estimators_list_the_known_ones():
    assert estimator("bound_steps_32") == BoundSteps(32)
    for name in ("joint", "bound_steps_0", "bound_steps"):
        with pytest.raises(ValueError, match=r"known: bound_continuous, .*bound_steps_N"):
            estimator(name)


def test_kraft_sum_is_corrected_for_noise():
    """Without the correction, noise of variance 1 in 32 repetitions would add 1 / 64 to a sum of 1."""
    nats = np.log(4) + np.random.default_rng(0).normal(size=(2000, 32, 4))
    values, errors = zip(*map(kraft_sum, nats), strict=True)
    assert np.mean(values) == pytest.approx(1, abs=0.005)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)
