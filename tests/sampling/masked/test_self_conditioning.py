"""Sampling with self-conditioning: every step reads the previous prediction, without further evaluations.

Most tests read one recorded run, with the inputs and the logits of all evaluations.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import families
from tests.small_configs import small_config
from tests.weights import keys_of, randomized

MASK, LENGTH, SIZE, STEPS = 7, 6, 2, 12


def config_of(**overrides):
    fields = dict(data__length=LENGTH, memory__adapter="linear", sample__steps=STEPS, sample__final="draw")
    return small_config(**fields | overrides)


SYSTEM = families.system(config_of(), MASK)
PARAMS = randomized(SYSTEM.init, scale=0.3)
# The adapter is scaled up, so that the self-conditioning input changes the samples.
PARAMS["adapter"] = jax.tree.map(lambda leaf: 5 * leaf, PARAMS["adapter"])
ZERO = PARAMS | {"adapter": jax.tree.map(jnp.zeros_like, PARAMS["adapter"])}
next_memory = jax.jit(SYSTEM.self_conditioning)


def recorded(config):
    """Return the samples of a run, and (state, self-conditioning input, logits) of all evaluations in order."""
    records = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        logits = SYSTEM.denoiser(params, noisy, time, cond, memory)
        jax.debug.callback(lambda *values: records.append(values), noisy, memory, logits, ordered=True)
        return logits

    sample = jax.jit(families.sampler(config, replace(SYSTEM, denoiser=denoiser)))
    samples = sample(PARAMS, keys_of(SIZE), jnp.full((SIZE, LENGTH), MASK))
    jax.effects_barrier()
    return samples, [np.stack(arrays) for arrays in zip(*records, strict=True)]


@pytest.fixture(scope="module")
def run():
    """Return a run; some of its 12 steps for 6 positions are idle."""
    return recorded(config_of())


def test_every_step_reads_the_prediction_of_the_step_before(run):
    """The first step reads zeros, and noise removal the last step; the soft embedding of masked positions is p E."""
    samples, (states, memories, logits) = run
    assert len(states) == STEPS + 1 and (samples.evaluations == STEPS + 1).all()
    assert not memories[0].any()
    for step in range(STEPS):
        before, after = states[step], states[step + 1]
        np.testing.assert_array_equal(memories[step + 1], next_memory(PARAMS, logits[step], before, after))
        odds = np.exp(logits[step][..., :MASK].astype(np.float64))
        p = odds / odds.sum(axis=-1, keepdims=True)
        by_hand = p @ np.asarray(PARAMS["embedding"])[:MASK] * (after == MASK)[..., None]
        np.testing.assert_allclose(memories[step + 1], by_hand, atol=1e-6)
        assert memories[step + 1].any() == (after == MASK).any()


def test_an_idle_step_refines_the_prediction_where_the_adapter_is_not_zero(run):
    """Only the self-conditioning input differs; with a new adapter the logits are equal."""
    _, (states, memories, logits) = run
    idle = [step for step in range(1, STEPS) if (states[step + 1] == states[step]).all()]
    idle = [step for step in idle if (states[step] == MASK).any()]
    assert len(idle) >= 2
    denoise, time = jax.jit(SYSTEM.denoiser), jnp.zeros(SIZE)
    for step in idle:
        hidden = states[step] == MASK
        assert np.abs(memories[step + 1] - memories[step]).max() > 1e-5
        assert np.abs(logits[step + 1] - logits[step])[hidden].max() > 1e-5
        answers = [denoise(ZERO, states[step], time, None, memories[number]) for number in (step, step + 1)]
        np.testing.assert_array_equal(*answers)


def test_new_adapter_gives_the_samples_of_the_base_network():
    """Tokens and evaluations are equal for equal keys; with a trained adapter tokens differ."""
    base = families.system(config_of(memory__adapter="none"), MASK)
    old = {name: part for name, part in PARAMS.items() if name != "adapter"}
    keys, prompt = keys_of(16), jnp.full((16, LENGTH), MASK)
    expected = jax.jit(families.sampler(config_of(), base))(old, keys, prompt)
    sample = jax.jit(families.sampler(config_of(), SYSTEM))
    drawn, conditioned = (sample(params, keys, prompt) for params in (ZERO, PARAMS))
    for name in ("tokens", "evaluations", "idle"):
        np.testing.assert_array_equal(getattr(drawn, name), getattr(expected, name))
    assert (conditioned.tokens != expected.tokens).any()
    np.testing.assert_array_equal(conditioned.evaluations, expected.evaluations)
    np.testing.assert_array_equal(sample(PARAMS, keys[::-1], prompt).tokens[::-1], conditioned.tokens)
    null = jax.jit(families.sampler(config_of(sample__memory="null"), SYSTEM))(PARAMS, keys, prompt)
    np.testing.assert_array_equal(null.tokens, expected.tokens)


def test_the_input_of_positions_that_are_masked_again_is_zero():
    """Where the step before has read a token, there is no prediction for the next one."""
    _, (states, memories, logits) = recorded(config_of(sample__policy="remdm", sample__remask__eta=0.3))
    again = (states[1:] == MASK) & (states[:-1] != MASK)
    assert again.sum() > 3 and not memories[1:][again].any()
    for step in range(STEPS):
        expected = next_memory(PARAMS, logits[step], states[step], states[step + 1])
        np.testing.assert_array_equal(memories[step + 1], expected)
