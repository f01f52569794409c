"""Denoisers that read their own predictions: training passes, likelihoods of several passes, and learning."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.likelihood.estimators import bound_continuous, bound_marginal, split_passes
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned, self_conditioned
from diffusion.oracles.check import estimate_nats
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import expected_nats
from diffusion.processes.masking import MaskedDiffusion
from diffusion.schedules.masking import LogLinear
from experiments import families
from tests.checks import deviation, refused
from tests.small_configs import small_config
from tests.weights import keys_of, randomized

# Denoisers.


def scalar(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A denoiser with logit u = a + w c for the second of two tokens, and 0 for the first."""
    memory = jnp.zeros((*noisy.shape, 1)) if memory is None else memory
    logit = params["a"] + params["w"] * memory
    return jnp.concatenate([0 * logit, logit, 0 * logit], axis=-1)


# The rows of the tokens are 0 and 1, so that the input is the probability of the second token.
CHANCE = SoftEmbedding(MaskedDiffusion(2, LogLinear()), lambda params: jnp.array([[0.0], [1.0]]), 1)
BOTH = jnp.full((1, 1), 2)


def test_no_gradient_passes_through_the_first_pass():
    """u(c) = a + w c, p = sigmoid(u(0)), loss -log sigmoid(u(p)) at a = 0, w = 1; with p's gradient: -0.471926."""
    start, time = {"a": jnp.zeros(()), "w": jnp.ones(())}, jnp.zeros(1)

    def loss(denoiser, params):
        return -jax.nn.log_softmax(denoiser(params, BOTH, time)[0, 0, :2])[1]

    value, slope = jax.value_and_grad(partial(loss, randomly_self_conditioned(scalar, CHANCE)))(start)
    np.testing.assert_allclose([value, slope["a"], slope["w"]], [0.474077, -0.377541, -0.188770], atol=1e-6)
    # The same two passes with a gradient through the first.
    value, slope = jax.value_and_grad(partial(loss, self_conditioned(scalar, CHANCE, 2)))(start)
    np.testing.assert_allclose([value, slope["a"]], [0.474077, -0.471926], atol=1e-6)


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_every_pass_reads_the_prediction_of_the_pass_before(passes):
    """p_1 = sigmoid(a), p_{k+1} = sigmoid(a + w p_k)."""
    params, expected = {"a": jnp.float32(0.3), "w": jnp.float32(-2.0)}, 0.0
    for _ in range(passes):
        expected = 1 / (1 + np.exp(-(0.3 - 2 * expected)))
    logits = self_conditioned(scalar, CHANCE, passes)(params, BOTH, jnp.zeros(1))
    assert jax.nn.sigmoid(logits[0, 0, 1]) == pytest.approx(expected, rel=1e-6)
    if passes == 2:
        np.testing.assert_array_equal(randomly_self_conditioned(scalar, CHANCE)(params, BOTH, jnp.zeros(1)), logits)


def test_coins_in_training():
    """One per example, from its key alone; without keys all examples are self-conditioned."""
    params, noisy, time = {"a": jnp.zeros(()), "w": jnp.ones(())}, jnp.full((4096, 1), 2), jnp.zeros(4096)

    @partial(jax.jit, static_argnums=0)
    def conditioned(rate, keys):
        return randomly_self_conditioned(scalar, CHANCE, rate)(params, noisy, time, keys=keys)[:, 0, 1] > 0

    for rate in (0.0, 0.1, 0.5, 1.0):
        fraction = float(conditioned(rate, keys_of(4096)).mean())
        assert abs(fraction - rate) < 0.03 and (fraction == rate or 0 < rate < 1)
        assert conditioned(rate, None).all()
    coins = np.asarray(conditioned(0.5, keys_of(4096)))
    np.testing.assert_array_equal(conditioned(0.5, keys_of(4096)[::-1]), coins[::-1])
    assert abs(np.mean(coins[1:] == coins[:-1]) - 0.5) < 0.03


def test_rates_outside_zero_to_one_are_rejected():
    for rate in (-0.1, 1.5, float("nan")):
        with refused(r"memory\.rate: must lie in \[0, 1\], not"):
            randomly_self_conditioned(scalar, CHANCE, rate)


def test_the_name_of_an_estimator_has_the_number_of_passes():
    assert split_passes("bound_continuous_passes_3") == ("bound_continuous", 3)
    assert split_passes("bound_steps_4_passes_12") == ("bound_steps_4", 12)
    for name in ("bound_continuous", "bound_steps_4", "bound_continuous_passes_0", "bound_passes"):
        assert split_passes(name) == (name, 1)


# Likelihoods of several passes at the same state.


def small_network(digits=1, vocabulary=3, length=3):
    """A small network with random weights, and an adapter with large ones."""
    config = small_config(data__length=length, memory__adapter="linear", codec__digits=digits)
    system = families.system(config, vocabulary)
    params = randomized(system.init)
    return system, params | {"adapter": jax.tree.map(lambda leaf: 10 * leaf, params["adapter"])}


@pytest.mark.parametrize("digits", [1, 2])
def test_several_passes_have_a_valid_bound(digits):
    """As exact sums over all states: the Kraft sum is at most 1, and the mean under the data at least the entropy."""
    vocabulary, length = (3, 3) if digits == 1 else (5, 2)
    language = random_language(0, vocabulary, length)
    system, params = small_network(digits, vocabulary, length)
    exact = {}
    for passes in (1, 2, 3):
        denoise = partial(self_conditioned(system.denoiser, system.self_conditioning, passes), params)
        if digits == 1:
            exact[passes] = language.expected_bound(denoise)
        else:
            exact[passes] = expected_nats(system.process, denoise, language.sequences, "marginal")
        kraft = np.exp(-exact[passes]).sum()
        assert 0.5 < kraft < 1 + 1e-5
        assert language.table @ exact[passes] > language.entropy() + 0.05
    assert np.abs(exact[1] - exact[2]).max() > 0.5 and np.abs(exact[2] - exact[3]).max() > 0.1

    # The draws of the estimator average to it for every sequence.
    denoise = partial(randomly_self_conditioned(system.denoiser, system.self_conditioning), params)
    estimate = bound_continuous if digits == 1 else bound_marginal
    nats = estimate_nats(estimate, denoise, system.process, language.sequences, 512, jax.random.key(7))
    assert deviation(nats, exact[2]) < 4.5
    assert np.max(nats.std(axis=0) / np.sqrt(len(nats))) < 0.5 < np.abs(exact[1] - exact[2]).max()
