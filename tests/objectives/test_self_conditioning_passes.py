"""Denoisers that read their own predictions: training passes, and likelihoods of several passes."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.likelihood.estimators import bound_continuous, bound_marginal, split_passes
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned, self_conditioned
from diffusion.oracles.check import estimate_nats
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import expected_nats
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws, fold
from diffusion.schedules.masking import LogLinear
from experiments import families
from experiments.plan import resolve
from tests.checks import deviation
from tests.small_configs import small_config
from tests.weights import keys_of, randomized

# Denoisers.


def scalar(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A denoiser with logit u = a + w c for the second of two tokens, and 0 for the first."""
    memory = jnp.zeros((*noisy.shape, 1)) if memory is None else memory
    logit = params["a"] + params["w"] * memory
    return jnp.concatenate([0 * logit, logit, 0 * logit], axis=-1)


# The rows of the tokens are 0 and e = 1, so that the input is the probability of the second token.
CHANCE = SoftEmbedding(MaskedDiffusion(2, LogLinear()), lambda params: jnp.array([[0.0], [1.0]]) * params["e"], 1)
BOTH = jnp.full((1, 1), 2)


def test_no_gradient_passes_through_the_first_pass():
    """u(c) = a + w c, p = sigmoid(u(0)), loss -log sigmoid(u(p e)) at a = 0, w = e = 1; the table has a gradient.

    With p's gradient, as in `self_conditioned`, that of a is -0.471926.
    """
    start, time = {"a": jnp.zeros(()), "w": jnp.ones(()), "e": jnp.ones(())}, jnp.zeros(1)

    def loss(denoiser, params):
        return -jax.nn.log_softmax(denoiser(params, BOTH, time)[0, 0, :2])[1]

    for denoiser, expected in (
        (randomly_self_conditioned(scalar, CHANCE), {"a": -0.377541, "e": -0.188770, "w": -0.188770}),
        (self_conditioned(scalar, CHANCE, 2), {"a": -0.471926, "e": -0.188770, "w": -0.188770}),
    ):
        value, slope = jax.jit(jax.value_and_grad(partial(loss, denoiser)))(start)
        assert float(value) == pytest.approx(0.474077, abs=1e-6)
        assert slope == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_every_pass_reads_the_prediction_of_the_pass_before(passes):
    """p_1 = sigmoid(a), p_{k+1} = sigmoid(a + w p_k)."""
    params, expected = {"a": jnp.float32(0.3), "w": jnp.float32(-2.0), "e": jnp.float32(1.0)}, 0.0
    for _ in range(passes):
        expected = 1 / (1 + np.exp(-(0.3 - 2 * expected)))
    logits = self_conditioned(scalar, CHANCE, passes)(params, BOTH, jnp.zeros(1))
    assert jax.nn.sigmoid(logits[0, 0, 1]) == pytest.approx(expected, rel=1e-6)
    if passes == 2:
        np.testing.assert_array_equal(randomly_self_conditioned(scalar, CHANCE)(params, BOTH, jnp.zeros(1)), logits)


def test_coins_in_training():
    """One per example, from its key alone; without keys all examples are self-conditioned."""
    params, noisy, time = dict.fromkeys("we", jnp.ones(())), jnp.full((4096, 1), 2), jnp.zeros(4096)
    params["a"] = jnp.zeros(())

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


# Training of a small transformer with dropout, random weights, and an adapter that is random or new (zero).

VOCABULARY, LENGTH, BATCH = 11, 8, 6


def system_of(**overrides):
    config = small_config(model__dropout=0.3, data__length=LENGTH, **overrides)
    return config, families.system(config, VOCABULARY)


TOKENS = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, VOCABULARY)
NOISE = draws(jax.random.key(5), "test", 0, BATCH)
BASE = system_of()[1]
SYSTEM = system_of(memory__adapter="linear")[1]
PARAMS = randomized(SYSTEM.init)
OLD = {name: part for name, part in PARAMS.items() if name != "adapter"}
NEW = OLD | {"adapter": jax.tree.map(jnp.zeros_like, PARAMS["adapter"])}


@partial(jax.jit, static_argnums=0)
def slope(denoiser, params):
    """Compute the loss of MDLM, with dropout, and its gradient."""
    batch = {"tokens": TOKENS, "weights": jnp.ones(TOKENS.shape)}
    (total, _), gradient = jax.value_and_grad(Nelbo(denoiser, BASE.process), has_aux=True)(params, batch, NOISE)
    return total, gradient


TWO, NONE = (randomly_self_conditioned(SYSTEM.denoiser, SYSTEM.self_conditioning, rate) for rate in (1.0, 0.0))


@pytest.mark.parametrize(("denoiser", "params"), [(TWO, NEW), (NONE, PARAMS)], ids=["new adapter", "rate 0"])
def test_training_with_a_new_adapter_or_at_rate_zero_is_that_of_the_base(denoiser, params):
    """A new adapter has a gradient; at rate 0 a random adapter has exactly none."""
    base, expected = slope(BASE.denoiser, OLD)
    loss, gradient = slope(denoiser, params)
    assert loss == base and np.isfinite(loss)
    largest = np.abs(gradient.pop("adapter")["linear"]["kernel"]).max()
    assert largest > 1e-3 if denoiser is TWO else largest == 0
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-6


def test_low_precision_is_finite():
    """Loss and gradient with bfloat16 products, for states with all masks and with none."""
    _, system = system_of(memory__adapter="linear", model__dtype="bfloat16")
    denoiser = randomly_self_conditioned(system.denoiser, system.self_conditioning)

    @jax.jit
    def run(params, hidden):
        def loss(params):
            noisy = jnp.where(hidden[:, None], VOCABULARY, TOKENS)
            logits = denoiser(params, noisy, jnp.ones(BATCH), keys=fold(NOISE.keys, "dropout"))
            log_prob = system.process.log_prob(logits, noisy, TOKENS)
            return -jnp.sum(jnp.where(hidden[:, None], log_prob, 0)), logits

        (total, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return total, logits, gradient

    total, logits, gradient = run(PARAMS, jnp.ones(BATCH, bool))
    assert logits.dtype == jnp.bfloat16 and np.isfinite(total) and total > 0
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, logits.astype(jnp.float32))))
    assert np.abs(gradient["adapter"]["linear"]["kernel"]).max() > 0
    total, logits, gradient = run(PARAMS, jnp.zeros(BATCH, bool))
    assert total == 0 and np.isfinite(logits.astype(jnp.float32)).all()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_the_rate_is_that_of_the_config():
    """At rate 0 training has one pass, also for a network with self-conditioning."""
    config, system = system_of(memory__adapter="linear")
    assert families.objective(config, system).denoiser is not system.denoiser
    assert families.objective(resolve(config, {"memory.rate": 0.0}, 0), system).denoiser is system.denoiser
    assert families.objective(config, BASE).denoiser is BASE.denoiser
