"""Law 1 for uniform noise: the bound equals the entropy under the leave-one-out posterior, and is valid under any."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.likelihood import estimators
from diffusion.likelihood.uniform import BoundUniformSteps, bound_uniform, estimator, step_nats
from diffusion.oracles.check import estimate_nats, kraft_sum
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.markov import random_chain
from diffusion.oracles.uniform import uniform_posterior
from diffusion.processes.uniform import UniformDiffusion
from diffusion.rng import draws
from diffusion.schedules.masking import Cosine, Geometric, LogLinear, Polynomial, inverse
from tests.checks import deviation
from tests.languages import lookup

LANGUAGE = random_language(0, vocabulary=3, length=2)
PROCESS = UniformDiffusion(3, LogLinear())
WRONG = lookup(3, 2, (2, 4), 0.3)


def state_probs(language, level):
    """q(z | x) of every state z and clean sequence x, [Z, X], and those two as rows of tokens, [Z X, L]."""
    size = language.vocabulary
    pairs = itertools.product(language.sequences, language.sequences)
    noisy, clean = (np.stack(column) for column in zip(*pairs, strict=True))
    probs = np.prod(np.where(noisy == clean, 1 - level + level / size, level / size), axis=1)
    return probs.reshape(len(language.table), -1), noisy, clean


@cache
def exact_bound(language, process, denoise, nodes=24):
    """The bound of every sequence by Gauss-Legendre quadrature over levels and a sum over all states, in nats."""
    points, weights = np.polynomial.legendre.leggauss(nodes)
    points, weights, top = (points + 1) / 2, weights / 2, float(process.schedule.masked(np.ones(())))
    total = np.full(len(language.table), process.prior_nats() * language.length)

    @jax.jit
    def integrand(noisy, clean, level):
        level = jnp.full(len(noisy), level)
        logits = denoise(noisy, inverse(process.schedule, 1 - level))
        return process.bound_integrand(logits, noisy, clean, level).sum(axis=1)

    # Level u^2 puts more nodes where the integrand changes fast.
    for point, weight in zip(points, weights, strict=True):
        level = top * point**2
        probs, noisy, clean = state_probs(language, level)
        values = np.asarray(integrand(noisy, clean, level), np.float64).reshape(probs.shape)
        total += weight * 2 * point * top * (probs * values).sum(axis=0)
    return total


def prior_gap(language, process):
    """KL(q(z_1) || uniform) in nats, by which the bound of the exact denoiser exceeds the entropy."""
    end = state_probs(language, float(process.schedule.masked(np.ones(()))))[0] @ language.table
    return float(np.sum(end * np.log(end * len(end))))


@pytest.mark.parametrize("schedule", [LogLinear(), LogLinear(0.2), Cosine(), Polynomial()], ids=str)
def test_the_bound_of_the_exact_denoiser_is_the_entropy(schedule):
    process = UniformDiffusion(3, schedule)
    bound = exact_bound(LANGUAGE, process, uniform_posterior(LANGUAGE, process))
    gap = prior_gap(LANGUAGE, process)
    assert LANGUAGE.table @ bound == pytest.approx(LANGUAGE.entropy() + gap, abs=1e-3)
    assert (gap > 5e-3) == (schedule == LogLinear(0.2))


def test_the_worked_language():
    """An entropy of 3.422 nats: the leave-one-out posterior has it, the full posterior 5.31."""
    language = random_language(0, vocabulary=4, length=3)
    process = UniformDiffusion(4, LogLinear())
    assert language.entropy() == pytest.approx(3.422, abs=1e-3)
    values = [
        language.table @ exact_bound(language, process, uniform_posterior(language, process, leave_one_out=one))
        for one in (True, False)
    ]
    assert values[0] == pytest.approx(language.entropy(), abs=2e-3)
    assert values[1] == pytest.approx(5.31, abs=0.06)


@pytest.mark.parametrize("one", [True, False], ids=["leave one out", "full"])
def test_messages_along_a_chain_are_the_sum_over_its_sequences(one):
    chain = random_chain(1, vocabulary=3, length=4)
    noisy, time = jax.random.randint(jax.random.key(0), (6, 4), 0, 3), jnp.array([0.0, 0.05, 0.3, 0.6, 0.9, 1.0])
    denoisers = [uniform_posterior(language, PROCESS, leave_one_out=one) for language in (chain, chain.enumerate())]
    found, summed = jax.jit(lambda: [jax.nn.softmax(denoise(noisy, time)) for denoise in denoisers])()
    np.testing.assert_allclose(found, summed, atol=2e-5)


def test_wrong_denoisers_have_a_larger_bound_and_a_smaller_kraft_sum():
    exact = exact_bound(LANGUAGE, PROCESS, uniform_posterior(LANGUAGE, PROCESS))
    assert np.exp(-exact).sum() == pytest.approx(1, abs=2e-3)
    for denoise in (WRONG, uniform_posterior(LANGUAGE, PROCESS, leave_one_out=False)):
        bound = exact_bound(LANGUAGE, PROCESS, denoise)
        assert LANGUAGE.table @ bound > LANGUAGE.entropy() + 0.05
        assert np.exp(-bound).sum() < 0.99


def estimates(estimate, process, denoise, draws_each=2048):
    return estimate_nats(estimate, denoise, process, LANGUAGE.sequences, draws_each, jax.random.key(7))


def test_bounds_hold_for_schedules_with_noise_at_time_0():
    process = UniformDiffusion(3, Geometric(low=0.1, high=1.0))
    for estimate in (bound_uniform, BoundUniformSteps(3)):
        value, error = kraft_sum(estimates(estimate, process, WRONG))
        assert 0.5 < value < 1 + 3.5 * error


@partial(jax.jit, static_argnums=(0, 1))
def exact_step_nats(process, denoise, noisy, clean, time, level, before):
    time, level, before = (jnp.full(len(noisy), value) for value in (time, level, before))
    return step_nats(process, denoise(noisy, time), noisy, clean, level, before).sum(axis=1)


def exact_steps_bound(process, denoise, steps):
    """The bound of every sequence in equal steps, a sum over steps and states, in nats."""
    times = np.arange(steps + 1) / steps
    levels = np.asarray(process.schedule.masked(times))
    total = np.full(len(LANGUAGE.table), process.prior_nats() * LANGUAGE.length)

    for time, level, before in zip(times[1:], levels[1:], levels[:-1], strict=True):
        probs, noisy, clean = state_probs(LANGUAGE, level)
        nats = exact_step_nats(process, denoise, noisy, clean, time, level, before)
        total += (probs * np.asarray(nats, np.float64).reshape(probs.shape)).sum(axis=0)
    return total


def test_the_bound_of_steps_falls_to_the_entropy():
    exact = uniform_posterior(LANGUAGE, PROCESS)
    gaps = [LANGUAGE.table @ exact_steps_bound(PROCESS, exact, steps) - LANGUAGE.entropy() for steps in (1, 4, 16, 64)]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] > 8 * gaps[3] > 0
    # One step draws the product of marginals.
    joint = LANGUAGE.table.reshape(3, 3)
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    assert gaps[0] == pytest.approx(np.sum(joint * np.log(joint / product)), abs=5e-3)


def test_draws_have_the_mean_of_their_bound():
    for estimate, exact in (
        (bound_uniform, exact_bound(LANGUAGE, PROCESS, WRONG)),
        (BoundUniformSteps(4), exact_steps_bound(PROCESS, WRONG, 4)),
    ):
        assert deviation(estimates(estimate, PROCESS, WRONG), exact) < 4.5


def test_an_estimator_of_another_process_is_refused():
    assert estimator("bound_uniform_steps_32") == BoundUniformSteps(32)
    for name, look_up in (("bound_continuous", estimator), ("bound_uniform_steps_8", estimators.estimator)):
        with pytest.raises(ValueError, match=f"unknown name '{name}' for process.name="):
            look_up(name)


@pytest.mark.parametrize("estimate", [bound_uniform, BoundUniformSteps(4)], ids=["continuous", "steps"])
def test_positions_of_weight_zero_do_not_count(estimate):
    """With the same draws the two positions add up to the bound."""
    tokens, noise = jnp.asarray(LANGUAGE.sequences), draws(jax.random.key(0), "test", 0, 9)
    run = jax.jit(lambda weights: estimate(WRONG, PROCESS, tokens, jnp.broadcast_to(weights, (9, 2)), noise))
    whole, first, last = (np.asarray(run(np.float32(weights))) for weights in ((1, 1), (1, 0), (0, 1)))
    np.testing.assert_allclose(first + last, whole, rtol=1e-5)
