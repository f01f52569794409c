"""Sampling with self-conditioning: every step reads the previous prediction, without further evaluations.

Most tests read one recorded run, with the inputs and the logits of all evaluations.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import families
from tests.sampling.masked.recording import (
    LENGTH,
    MASK,
    PARAMS,
    SIZE,
    STEPS,
    SYSTEM,
    ZERO,
    config_of,
    next_memory,
    recorded,
)
from tests.weights import keys_of


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
        p = jax.nn.softmax(logits[step][..., :MASK].astype(np.float64), axis=-1)
        by_hand = (np.asarray(p) @ np.asarray(PARAMS["embedding"])[:MASK]) * (after == MASK)[..., None]
        np.testing.assert_allclose(memories[step + 1], by_hand, atol=1e-6)
    assert all(memories[step + 1].any() for step in range(STEPS) if (states[step + 1] == MASK).any())


def test_revealed_tokens_do_not_change_and_no_mask_remains(run):
    samples, (states, _, _) = run
    states = np.concatenate([states, np.asarray(samples.tokens)[None]])
    known = states[:-1] != MASK
    np.testing.assert_array_equal(states[1:][known], states[:-1][known])
    assert (samples.tokens < MASK).all() and (states[0] == MASK).all()
    assert len({tuple(row) for row in (states == MASK).sum(axis=2)}) > 4


def test_an_idle_step_refines_the_prediction_where_the_adapter_is_not_zero(run):
    """Only the self-conditioning input differs; with a new adapter the logits are equal."""
    _, (states, memories, logits) = run
    idle = [step for step in range(1, STEPS) if (states[step + 1] == states[step]).all()]
    idle = [step for step in idle if (states[step] == MASK).any()]
    assert len(idle) >= 2
    for step in idle:
        hidden = states[step] == MASK
        assert np.abs(memories[step + 1] - memories[step]).max() > 1e-5
        assert np.abs(logits[step + 1] - logits[step])[hidden].max() > 1e-5
    denoise, time = jax.jit(SYSTEM.denoiser), jnp.zeros(SIZE)
    for step in idle:
        answers = [denoise(ZERO, states[step], time, None, memories[number]) for number in (step, step + 1)]
        np.testing.assert_array_equal(*answers)


def test_new_adapter_gives_the_samples_of_the_base_network():
    """Tokens and evaluations are equal for equal keys; with a trained adapter tokens differ."""
    config, system = config_of(), SYSTEM
    base = families.system(config_of(memory__adapter="none"), MASK)
    old = {name: part for name, part in PARAMS.items() if name != "adapter"}
    keys, prompt = keys_of(16), jnp.full((16, LENGTH), MASK)
    expected = jax.jit(families.sampler(config, base))(old, keys, prompt)
    sample = jax.jit(families.sampler(config, system))
    drawn = sample(ZERO, keys, prompt)
    np.testing.assert_array_equal(drawn.tokens, expected.tokens)
    np.testing.assert_array_equal(drawn.evaluations, expected.evaluations)
    np.testing.assert_array_equal(drawn.idle, expected.idle)
    conditioned = sample(PARAMS, keys, prompt)
    assert (conditioned.tokens != expected.tokens).any()
    np.testing.assert_array_equal(conditioned.evaluations, expected.evaluations)
    np.testing.assert_array_equal(sample(PARAMS, keys[::-1], prompt).tokens[::-1], conditioned.tokens)
    null = jax.jit(families.sampler(config_of(sample__memory="null"), system))(PARAMS, keys, prompt)
    np.testing.assert_array_equal(null.tokens, expected.tokens)


def test_the_input_of_positions_that_are_masked_again_is_zero():
    """Where the step before has read a token, there is no prediction for the next one."""
    _, (states, memories, logits) = recorded(config_of(sample__policy="remdm", sample__remask__eta=0.3))
    again = (states[1:] == MASK) & (states[:-1] != MASK)
    assert again.sum() > 3 and not memories[1:][again].any()
    for step in range(STEPS):
        expected = next_memory(PARAMS, logits[step], states[step], states[step + 1])
        np.testing.assert_array_equal(memories[step + 1], expected)
