"""Denoisers that read their own predictions: training passes, likelihoods of several passes, and learning."""

import argparse
import dataclasses as dc
import inspect
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.likelihood.estimators import bound_continuous, bound_marginal, split_passes
from diffusion.likelihood.summary import make_evaluator
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned, self_conditioned
from diffusion.oracles.check import estimate_nats
from diffusion.oracles.enumerable import random_language
from diffusion.oracles.subtokens import expected_nats
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import example_keys
from diffusion.schedules.masking import LogLinear
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from tests.weights import randomized


def keys_of(size, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(size))


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


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")], ids=str)
def test_rates_outside_zero_to_one_are_rejected(rate):
    with pytest.raises(ValueError, match=r"memory\.rate: must lie in \[0, 1\], not") as caught:
        randomly_self_conditioned(scalar, CHANCE, rate)
    assert "\n" not in str(caught.value)


def test_the_name_of_an_estimator_has_the_number_of_passes():
    assert split_passes("bound_continuous_passes_3") == ("bound_continuous", 3)
    assert split_passes("bound_steps_4_passes_12") == ("bound_steps_4", 12)
    for name in ("bound_continuous", "bound_steps_4", "bound_continuous_passes_0", "bound_passes"):
        assert split_passes(name) == (name, 1)


# Likelihoods of several passes at the same state.


def small_network(digits=1, vocabulary=3, length=3):
    """A small network with random weights, and an adapter with large ones."""
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    config.data.length, config.memory.adapter, config.codec.digits = length, "linear", digits
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
    error = nats.std(axis=0, ddof=1) / np.sqrt(len(nats))
    assert np.max(np.abs(nats.mean(axis=0) - exact[2]) / error) < 4.5
    assert np.max(error) < 0.5 < np.abs(exact[1] - exact[2]).max()


# Learning.


def source_windows(length):
    """Windows [N, L] of bytes: of argparse and inspect for training, and of dataclasses for evaluation."""
    texts = [b"".join(Path(module.__file__).read_bytes() for module in part) for part in ((argparse, inspect), (dc,))]
    return [np.frombuffer(text[: len(text) // length * length], np.uint8).reshape(-1, length) for text in texts]


@pytest.mark.slow
def test_a_network_learns_to_read_its_prediction(capsys):
    """Two passes after post-training at rate 1 are as good as at rate 1/2; about a million weights on bytes.

    The bounds are printed in nats per byte. The tolerances are large, as training is short.
    """
    length, size, first, more = 64, 16, 800, 150
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=128, blocks=4, heads=4, cond_dim=32, dropout=0.0, unroll=4)
    config.data.length, config.objective.name, config.optimizer.beta2 = length, "nelbo_reveal", 0.98
    train_windows, test_windows = (jnp.asarray(windows, jnp.int32) for windows in source_windows(length))
    batch_of = {"tokens": test_windows, "weights": jnp.ones(test_windows.shape)}

    def learned(config, params, steps, peak, seed):
        config.train.steps, config.optimizer.learning_rate = steps, peak
        config.optimizer.update(warmup=steps // 10, decay="cosine")
        optimizer, objective = families.optimizer(config), families.objective(config, families.system(config, 256))
        step = jax.jit(make_step(objective, optimizer, decay=0.99), donate_argnums=0)
        state, random = new_state(jax.tree.map(jnp.copy, params), optimizer), np.random.default_rng(seed)
        for _ in range(steps):
            tokens = train_windows[random.integers(len(train_windows), size=size)]
            state, _ = step(state, {"tokens": tokens, "weights": jnp.ones(tokens.shape)}, jax.random.key(seed))
        return state.ema

    def bounds(system, params):
        """The bounds of one, two and three passes, with the same noise."""
        values = []
        for passes in (1, 2, 3) if system.self_conditioning else (1,):
            denoiser = self_conditioned(system.denoiser, system.self_conditioning, passes)
            score = make_evaluator(bound_continuous, denoiser, system.process, 8)
            nats, tokens = score(params, batch_of, jax.random.key(5), 0)
            values.append(float(nats.sum() / tokens.sum()))
        return values

    base = families.system(config, 256)
    params = learned(config, jax.jit(base.init)(jax.random.key(0)), first, 3e-3, 0)
    results = {"base": bounds(base, params)}
    plain_params = learned(config, params, more, 1e-3, 1)
    results["rate 0, no adapter"] = bounds(base, plain_params)
    config.memory.adapter = "linear"
    extended = families.system(config, 256)
    adapter = jax.tree.map(jnp.zeros_like, randomized(extended.init)["adapter"])
    for rate in (0.5, 1.0):
        config.memory.rate = rate
        results[f"rate {rate}"] = bounds(extended, learned(config, params | {"adapter": adapter}, more, 1e-3, 1))
    with capsys.disabled():
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        print(f"\n{count:,} weights; nats per byte with one, two and three passes:")
        for name, values in results.items():
            print(f"  {name:20}", *(f"{value:.4f}" for value in values))
    assert results["base"][0] < 3.0, "the entropy of single bytes is about 3.1 nats"
    assert results["rate 1.0"][1] < results["rate 0.5"][1] + 0.05
    assert results["rate 1.0"][1] < results["base"][0] + 0.02
    assert np.isfinite([value for values in results.values() for value in values]).all()
