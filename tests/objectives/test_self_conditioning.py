"""What is remembered of a prediction, row by row, and denoisers that read it: worked numbers, coins, likelihoods."""

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
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood.estimators import bound_continuous, bound_marginal, split_passes
from diffusion.likelihood.summary import make_evaluator
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned, self_conditioned
from diffusion.oracles.check import estimate_nats
from diffusion.oracles.digits import expected_nats
from diffusion.oracles.enumerable import random_language
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import example_keys
from diffusion.schedules.masking import LogLinear
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from tests.weights import randomized

MASK = 3
PROCESS = MaskedDiffusion(MASK, LogLinear())
MODES = ("masked", "recarry", "raw")
# Row v of the table is e_v, so that a memory reads as the probabilities themselves.
ONE_HOT = partial(SoftEmbedding, PROCESS, lambda params: jnp.eye(MASK), MASK)
MIXED = jnp.array([0, np.log(2), np.log(3), 5])
SIXTHS = [1 / 6, 1 / 3, 1 / 2]


def keys_of(size, seed=0):
    return example_keys(jax.random.key(seed), jnp.arange(size))


# Rows.

# Positions: still masked, revealed now, known, masked again.
BEFORE, AFTER = jnp.array([[MASK, MASK, 1, 2]]), jnp.array([[MASK, 0, 1, MASK]])
NOTHING, ZERO, ONE = [0, 0, 0], [1, 0, 0], [0, 1, 0]
EXPECTED = {
    "masked": [SIXTHS, NOTHING, NOTHING, NOTHING],
    "recarry": [SIXTHS, ZERO, ONE, NOTHING],
    "raw": [SIXTHS, SIXTHS, ONE, NOTHING],
}


@pytest.mark.parametrize("rows", MODES)
def test_rows_of_a_prediction(rows):
    """The mask class has no mass whatever its logit; what was taken back is forgotten."""
    self_conditioning = ONE_HOT(rows=rows)
    logits = jnp.broadcast_to(MIXED[None, None], (1, 4, 4))
    memory = self_conditioning(None, logits, BEFORE, AFTER)
    np.testing.assert_allclose(memory[0], EXPECTED[rows], rtol=1e-6)
    np.testing.assert_array_equal(self_conditioning.empty(BEFORE), np.zeros((1, 4, MASK)))
    # As in training, where the state is the same before and after: known positions have their token, or nothing.
    same = self_conditioning(None, logits, BEFORE, BEFORE)[0]
    np.testing.assert_allclose(same, [SIXTHS, SIXTHS, *(2 * [NOTHING] if rows == "masked" else [ONE, [0, 0, 1]])])
    assert np.sum(same, axis=1).tolist() == pytest.approx([1, 1, 0, 0] if rows == "masked" else [1, 1, 1, 1])


@pytest.mark.parametrize("rows", MODES)
def test_only_raw_rows_depend_on_the_prediction_of_what_is_known_now(rows):
    logits = jax.random.normal(jax.random.key(0), (1, 4, 4))
    moved = logits.at[:, 1:].add(jax.random.normal(jax.random.key(1), (1, 3, 4)))
    self_conditioning = ONE_HOT(rows=rows)
    change = np.abs(self_conditioning(None, moved, BEFORE, AFTER) - self_conditioning(None, logits, BEFORE, AFTER)).max(
        axis=-1
    )[0]
    assert (change > 1e-3).tolist() == [False, rows == "raw", False, False]


@pytest.mark.parametrize("rows", MODES)
def test_a_token_counts_as_masked_while_a_digit_is_and_forgets_when_one_is_masked_again(rows):
    """Five tokens of two base-3 digits (mask 3): 0 = 00, 1 = 01, 2 = 02, 3 = 10, 4 = 11."""
    process = PartialMaskedDiffusion(SubtokenCodec(5, 2), LogLinear())
    self_conditioning = SoftEmbedding(process, lambda params: jnp.eye(5), 5, rows)
    before = jnp.array([[3, 3, 3, 3, 0, 3, 0, 3, 1, 1, 1, 0]])
    after = jnp.array([[3, 3, 0, 3, 0, 3, 0, 2, 3, 1, 1, 0]])
    memory = self_conditioning(None, jnp.zeros((1, 6, 5)), before, after)
    uniform, filtered, nothing = np.full(5, 0.2), np.array([1, 1, 1, 0, 0]) / 3, np.zeros(5)
    known = np.eye(5)
    expected = {
        # A digit that the step has revealed rules tokens out at once; raw rows know what the prediction knew.
        "masked": [uniform, filtered, filtered, nothing, nothing, nothing],
        "recarry": [uniform, filtered, filtered, known[2], nothing, known[3]],
        "raw": [uniform, uniform, filtered, filtered, nothing, known[3]],
    }[rows]
    np.testing.assert_allclose(memory[0], expected, rtol=1e-6)
    assert self_conditioning.empty(before).shape == (1, 6, 5)


def test_a_soft_embedding_is_the_mean_of_the_tables_rows():
    """Exactly a row for a certain prediction, the mean of two rows for an even one; c E as if c itself were kept."""
    table = jax.random.normal(jax.random.key(0), (MASK, 6))
    self_conditioning = SoftEmbedding(PROCESS, lambda params: params, 6)
    certain = jnp.array([[[0.0, 200, 0, 0], [200, 0, 200, 9]]])
    state = jnp.full((1, 2), MASK)
    memory = self_conditioning(table, certain, state, state)[0]
    np.testing.assert_array_equal(memory[0], table[1])
    np.testing.assert_allclose(memory[1], (table[0] + table[2]) / 2, rtol=1e-6)
    logits, adapter = jax.random.normal(jax.random.key(1), (1, 2, 4)), jax.random.normal(jax.random.key(2), (6, 6))
    c = ONE_HOT()(None, logits, state, state)
    np.testing.assert_allclose(
        self_conditioning(table, logits, state, state) @ adapter, c @ (table @ adapter), atol=1e-6
    )


def test_a_table_with_a_row_for_the_mask_is_cut():
    """A U-Net on whole values predicts the mask's class too, and its adapter's own table has a row of it."""
    config = tiny(defaults("test", "debug"))
    config.data.update(source="mnist", length=784, tokenizer="values")
    config.model.net, config.memory.adapter = "unet", "table"
    config.unet.update(channels=8, multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2)
    system = families.system(config, 256)
    denoiser = randomly_self_conditioned(system.denoiser, system.self_conditioning)
    params = jax.eval_shape(system.init, jax.random.key(0))
    assert params["adapter"]["table"].shape == (257, 8)
    shape = jax.eval_shape(denoiser, params, jax.ShapeDtypeStruct((2, 784), jnp.int32), jnp.zeros(2)).shape
    assert shape == (2, 784, 257)


def test_unknown_rows_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"memory\.rows: unknown 'all'; known: masked, recarry, raw"):
        ONE_HOT(rows="all")


# Denoisers.


def scalar(params, noisy, time, cond=None, memory=None, *, keys=None):
    """u = a + w c for the second of two tokens, 0 for the first."""
    memory = jnp.zeros((*noisy.shape, 1)) if memory is None else memory
    logit = params["a"] + params["w"] * memory
    return jnp.concatenate([0 * logit, logit, 0 * logit], axis=-1)


# The second token's row is 1, the first one's 0: a memory is the probability of the second token.
CHANCE = SoftEmbedding(MaskedDiffusion(2, LogLinear()), lambda params: jnp.array([[0.0], [1.0]]), 1)
BOTH = jnp.full((1, 1), 2)


def test_no_gradient_passes_through_the_first_pass():
    """u(c) = a + w c, p = sigmoid(u(0)), loss -log sigmoid(u(p)) at a = 0, w = 1; with p's gradient: -0.471926."""
    start, time = {"a": jnp.zeros(()), "w": jnp.ones(())}, jnp.zeros(1)

    def loss(denoiser, params):
        return -jax.nn.log_softmax(denoiser(params, BOTH, time)[0, 0, :2])[1]

    value, slope = jax.value_and_grad(partial(loss, randomly_self_conditioned(scalar, CHANCE)))(start)
    np.testing.assert_allclose([value, slope["a"], slope["w"]], [0.474077, -0.377541, -0.188770], atol=1e-6)
    # The same two passes without the cut.
    value, slope = jax.value_and_grad(partial(loss, self_conditioned(scalar, CHANCE, 2)))(start)
    np.testing.assert_allclose([value, slope["a"]], [0.474077, -0.471926], atol=1e-6)


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_many_passes_read_themselves(passes):
    """p_1 = sigmoid(a), p_{k+1} = sigmoid(a + w p_k)."""
    params, expected = {"a": jnp.float32(0.3), "w": jnp.float32(-2.0)}, 0.0
    for _ in range(passes):
        expected = 1 / (1 + np.exp(-(0.3 - 2 * expected)))
    logits = self_conditioned(scalar, CHANCE, passes)(params, BOTH, jnp.zeros(1))
    assert jax.nn.sigmoid(logits[0, 0, 1]) == pytest.approx(expected, rel=1e-6)
    if passes == 2:
        np.testing.assert_array_equal(randomly_self_conditioned(scalar, CHANCE)(params, BOTH, jnp.zeros(1)), logits)


def test_coins_of_training():
    """One an example, with the given rate, from the example's key alone; none without keys, where all are told."""
    params, noisy, time = {"a": jnp.zeros(()), "w": jnp.ones(())}, jnp.full((4096, 1), 2), jnp.zeros(4096)

    @partial(jax.jit, static_argnums=0)
    def told(rate, keys):
        return randomly_self_conditioned(scalar, CHANCE, rate)(params, noisy, time, keys=keys)[:, 0, 1] > 0

    for rate in (0.0, 0.1, 0.5, 1.0):
        share = float(told(rate, keys_of(4096)).mean())
        assert abs(share - rate) < 0.03 and (share == rate or 0 < rate < 1)
        assert told(rate, None).all()
    coins = np.asarray(told(0.5, keys_of(4096)))
    np.testing.assert_array_equal(told(0.5, keys_of(4096)[::-1]), coins[::-1])
    assert abs(np.mean(coins[1:] == coins[:-1]) - 0.5) < 0.03


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")], ids=str)
def test_a_rate_is_a_probability(rate):
    with pytest.raises(ValueError, match=r"memory\.rate: must lie in \[0, 1\], not") as caught:
        randomly_self_conditioned(scalar, CHANCE, rate)
    assert "\n" not in str(caught.value)


def test_the_number_of_passes_is_read_from_an_estimators_name():
    assert split_passes("bound_continuous_passes_3") == ("bound_continuous", 3)
    assert split_passes("bound_steps_4_passes_12") == ("bound_steps_4", 12)
    for name in ("bound_continuous", "bound_steps_4", "bound_continuous_passes_0", "bound_passes"):
        assert split_passes(name) == (name, 1)


# Likelihoods: k passes at the same state are a denoiser of that state alone.


def told_network(digits=1, vocabulary=3, length=3):
    """A small network with random weights, and an adapter that is loud enough to matter."""
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    config.data.length, config.memory.adapter, config.codec.digits = length, "linear", digits
    system = families.system(config, vocabulary)
    params = randomized(system.init)
    return system, params | {"adapter": jax.tree.map(lambda leaf: 10 * leaf, params["adapter"])}


@pytest.mark.parametrize("digits", [1, 2])
def test_k_passes_have_a_bound(digits):
    """Exactly, over all states: Kraft's sum is at most 1, the mean under the data at least its entropy."""
    vocabulary, length = (3, 3) if digits == 1 else (5, 2)
    language = random_language(0, vocabulary, length)
    system, params = told_network(digits, vocabulary, length)
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

    # What `evaluate` draws averages to it, sequence by sequence.
    denoise = partial(randomly_self_conditioned(system.denoiser, system.self_conditioning), params)
    estimate = bound_continuous if digits == 1 else bound_marginal
    nats = estimate_nats(estimate, denoise, system.process, language.sequences, 512, jax.random.key(7))
    error = nats.std(axis=0, ddof=1) / np.sqrt(len(nats))
    assert np.max(np.abs(nats.mean(axis=0) - exact[2]) / error) < 4.5
    assert np.max(error) < 0.5 < np.abs(exact[1] - exact[2]).max()


# Learning.


def source_windows(length):
    """Bytes of the standard library's argparse and inspect to learn from, of its dataclasses to measure on: [N, L]."""
    texts = [b"".join(Path(module.__file__).read_bytes() for module in part) for part in ((argparse, inspect), (dc,))]
    return [np.frombuffer(text[: len(text) // length * length], np.uint8).reshape(-1, length) for text in texts]


@pytest.mark.slow
def test_a_trained_network_learns_to_read_its_prediction(capsys):
    """About a million weights on bytes: post-training at rate 1 is at rate 1/2's level or better with two passes.

    The bounds are printed, in nats a byte; with so little training only gross failures are refused.
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
        """Null, two and three passes, on the same noise."""
        found = []
        for passes in (1, 2, 3) if system.self_conditioning else (1,):
            denoiser = self_conditioned(system.denoiser, system.self_conditioning, passes)
            score = make_evaluator(bound_continuous, denoiser, system.process, 8)
            nats, tokens = score(params, batch_of, jax.random.key(5), 0)
            found.append(float(nats.sum() / tokens.sum()))
        return found

    base = families.system(config, 256)
    params = learned(config, jax.jit(base.init)(jax.random.key(0)), first, 3e-3, 0)
    found = {"base": bounds(base, params)}
    plain_params = learned(config, params, more, 1e-3, 1)
    found["rate 0, no adapter"] = bounds(base, plain_params)
    config.memory.adapter = "linear"
    told = families.system(config, 256)
    adapter = jax.tree.map(jnp.zeros_like, randomized(told.init)["adapter"])
    for rate in (0.5, 1.0):
        config.memory.rate = rate
        found[f"rate {rate}"] = bounds(told, learned(config, params | {"adapter": adapter}, more, 1e-3, 1))
    with capsys.disabled():
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        print(f"\n{count:,} weights; nats a byte with one, two and three passes:")
        for name, values in found.items():
            print(f"  {name:20}", *(f"{value:.4f}" for value in values))
    assert found["base"][0] < 3.0, "a byte's entropy by frequency alone is about 3.1 nats"
    assert found["rate 1.0"][1] < found["rate 0.5"][1] + 0.05
    assert found["rate 1.0"][1] < found["base"][0] + 0.02
    assert np.isfinite([value for values in found.values() for value in values]).all()
