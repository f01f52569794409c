"""Sampling with self-conditioning: every step reads the previous prediction, without further evaluations.

Most tests read one recorded run, with the inputs and the logits of all evaluations.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.self_conditioning import SoftEmbedding
from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear
from experiments import families
from tests.sampling.masked.recording import (
    BLANK,
    LENGTH,
    MASK,
    PARAMS,
    SIZE,
    STEPS,
    SYSTEM,
    ZERO,
    config_of,
    keys_of,
    next_memory,
    record,
    recorded,
)


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


def denoiser_calls(jaxpr):
    """Return the number of calls of the network in a program, including the bodies of its scans."""
    total, inside = 0, 0
    for equation in jaxpr.eqns:
        total += equation.params.get("name") == "network"
        for inner in jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns") and equation.params.get("name") != "network":
                calls, _ = denoiser_calls(inner)
                total += calls
                inside += calls if equation.primitive.name == "scan" else 0
    return total, inside


@pytest.mark.parametrize("final", ["argmax", "draw", "none"])
@pytest.mark.parametrize("memory", ["linear", "none"])
def test_step_has_one_call_of_the_network(memory, final):
    config = config_of(memory__adapter=memory, sample__final=final, sample__end=0.0)
    system = families.system(config, MASK)

    def network(*inputs):
        return system.denoiser(*inputs)

    sample = families.sampler(config, replace(system, denoiser=jax.jit(network)))
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    program = jax.make_jaxpr(sample)(shapes, keys_of(SIZE), BLANK)
    assert denoiser_calls(program.jaxpr) == (1 + (final != "none"), 1)


def test_self_conditioning_input_of_remasked_positions():
    """From alpha 0.5 to 0.6 with sigma 0.1, 0.9 of known positions stay known and 0.3 of masked ones are revealed."""
    size, seen, tokens = 2000, [], 4
    process = MaskedDiffusion(tokens, Linear())

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        record(seen, noisy, memory)
        return jnp.zeros((*noisy.shape, tokens + 1))

    self_conditioning = SoftEmbedding(process, lambda params: jnp.eye(tokens), tokens)
    sampler = MaskedSampler(denoiser, process, Policy(ancestral_step), Draw(tokens), "draw", self_conditioning)
    steps = grid(Linear(), 2, 8, end=0.0)._replace(
        keep_mask_prob=jnp.array([0.5, 0.7]), remask_prob=jnp.array([0, 0.1])
    )
    samples = jax.block_until_ready(jax.jit(sampler)(None, keys_of(size), jnp.full((size, 8), tokens), steps))
    jax.effects_barrier()
    (_, before, after), memory = (np.stack(arrays) for arrays in zip(*seen, strict=True))
    memory = memory[-1]
    was, now = before == tokens, after == tokens
    for share, expected in (
        (was.mean(), 0.5),
        (now.mean(), 0.4),
        (now[was].mean(), 0.7),
        ((~now)[was].mean(), 0.3),
        ((~now)[~was].mean(), 0.9),
    ):
        assert abs(share - expected) < 4.5 * (0.25 / (size * 4)) ** 0.5
    stored = np.asarray(self_conditioning(None, jnp.zeros((size, 8, tokens + 1)), before, after))
    np.testing.assert_allclose(memory, stored, rtol=1e-6)
    np.testing.assert_allclose(stored[now & was], 1 / tokens, rtol=1e-6)
    assert not stored[~(now & was)].any()
    assert (samples.tokens < tokens).all()
