"""Properties of the masked sampler without a trained network: mask counts, prompts, independence, costs."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid, padded
from diffusion.sampling.masked.policies import (
    Policy,
    StepInputs,
    ancestral_step,
    confidence_step,
    first_hitting,
    race_step,
    random_order_step,
)
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Cosine, Linear, Loop
from tests.checks import refused
from tests.languages import denoiser_of
from tests.sampling.masked.exact import switched
from tests.weights import keys_of

MASK, LENGTH = 5, 12
SCHEDULE = Linear()
PROCESS = MaskedDiffusion(MASK, SCHEDULE)
ROWS = grid(SCHEDULE, LENGTH, LENGTH, end=0.0)
POLICIES = {
    "ancestral": Policy(ancestral_step),
    "race": Policy(race_step),
    "random_order": Policy(random_order_step),
    "confidence": Policy(confidence_step(0.5)),
    "first_hitting": first_hitting(SCHEDULE),
}


def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Return logits that depend on the whole sequence and differ between positions."""
    context = jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True)
    return jnp.sin(context[..., None] * params + jnp.arange(MASK + 1)[None, None, :])


def sampler_of(name):
    """Return the sampler of a policy, or of its number; the low-precision race serves the other policies too."""
    policy = POLICIES[name] if isinstance(name, str) else switched(name, POLICIES.values())
    return MaskedSampler(denoiser, PROCESS, policy, Draw(MASK, "mdlm_float32"), "none")


compiled = jax.jit(lambda which, keys, prompt: sampler_of(which)(0.3, keys, prompt, ROWS))


def run(name, keys, prompt=None):
    prompt = jnp.full((len(keys), LENGTH), MASK) if prompt is None else prompt
    return compiled(list(POLICIES).index(name), keys, prompt)


@pytest.mark.parametrize("name", POLICIES)
def test_samples_have_no_masks_and_preserve_the_prompt(name):
    prompt = jnp.full((4, LENGTH), MASK).at[:, ::3].set(2).at[3].set(1)
    samples = run(name, keys_of(4), prompt)
    fixed = np.asarray(prompt != MASK)
    assert (samples.tokens < MASK).all()
    np.testing.assert_array_equal(np.asarray(samples.tokens)[fixed], np.asarray(prompt)[fixed])
    assert (samples.evaluations == LENGTH).all()
    assert samples.idle[3] == LENGTH, "all positions are in the prompt"


@pytest.mark.parametrize("name", POLICIES)
def test_sample_does_not_depend_on_the_batch_around_it(name):
    together = run(name, keys_of(4)).tokens
    order = np.array([3, 1, 0, 2])
    np.testing.assert_array_equal(run(name, keys_of(order)).tokens, together[order])
    np.testing.assert_array_equal(run(name, keys_of([2])).tokens, together[2:3])


FRACTION_SIZE, FRACTION_LENGTH = 256, 64


@jax.jit
def states_of(which, rows):
    """Return all states of samples by a network without preferences."""
    undecided = denoiser_of(lambda noisy, time: jnp.zeros((*noisy.shape, MASK + 1)))
    sampler = replace(sampler_of(which), denoiser=undecided, trace=FRACTION_SIZE)
    prompt = jnp.full((FRACTION_SIZE, FRACTION_LENGTH), MASK)
    return sampler(None, keys_of(FRACTION_SIZE, 8), prompt, rows).trace.states


@pytest.mark.parametrize("name", ["ancestral", "race", "random_order", "confidence"])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Loop()], ids=repr)
def test_masked_fraction_follows_the_schedule(name, schedule):
    """Law 2, in every step and for all examples together."""
    rows, length = grid(schedule, 6, FRACTION_LENGTH, end=0.0), FRACTION_LENGTH
    states = np.asarray(states_of(list(POLICIES).index(name), rows))
    measured = np.mean(states[1:] == MASK, axis=(1, 2))
    expected = schedule.masked(np.asarray(rows.next_time, np.float64))
    spread = np.sqrt(expected * (1 - expected) / (FRACTION_SIZE * length))
    # Exact-count policies round up to whole tokens.
    assert np.all(np.abs(measured - expected) < 4.5 * spread + 1 / length), (measured, expected)
    if name in ("random_order", "confidence"):
        np.testing.assert_allclose(measured * length, np.ceil(expected * length - 1e-4), atol=1e-3)


def test_low_precision_rule_cannot_draw_rare_tokens():
    """In the first of a million steps the smallest noise can draw a token of 50 %, but not one of 1 %."""
    row = jax.tree.map(lambda column: column[0], grid(SCHEDULE, 1_000_000, 4, end=0.0))
    masked, smallest_noise = jnp.ones((2, 4000), bool), -np.log1p(-(2.0**-23))
    revealed = {}
    for prob in (0.01, 0.5):
        inputs = StepInputs(masked, ~masked, None, None, jnp.full(masked.shape, prob / smallest_noise), None)
        stays, _ = race_step(keys_of(2), inputs, row, ())
        revealed[prob] = 1 - float(stays.mean())
    assert revealed[0.01] < 1e-3 and revealed[0.5] > 0.5, revealed


def test_sampler_compiles_once_for_a_sweep_of_temperatures():
    traces = []

    def traced(*inputs, **options):
        traces.append(1)
        return denoiser(*inputs, **options)

    draw = Draw(MASK, nucleus="standard")
    sampler = jax.jit(replace(sampler_of("ancestral"), denoiser=traced, draw=draw))
    for temperature in (0.5, 1.0, 2.0):
        table = grid(SCHEDULE, 8, LENGTH, end=0.0, temperature=temperature, nucleus=0.9)
        sampler(0.3, keys_of(1), jnp.full((1, LENGTH), MASK), table)
    assert len(traces) == 1


def test_padded_grids_share_one_program_and_change_no_sample():
    """Rows after the given number of steps have no effect, on samples and on counts."""
    sampler = MaskedSampler(denoiser, PROCESS, POLICIES["confidence"], Draw(MASK), "argmax")
    run = jax.jit(lambda keys, prompt, rows, steps: sampler(0.7, keys, prompt, rows, steps=steps))
    scanned = jax.jit(lambda keys, prompt, rows: sampler(0.7, keys, prompt, rows))
    keys, prompt = keys_of(16), jnp.full((16, LENGTH), MASK)
    for steps in (1, 3, 7):
        rows = grid(SCHEDULE, steps, LENGTH, end=1e-3)
        assert len(padded(rows).index) == 128
        jax.tree.map(np.testing.assert_array_equal, run(keys, prompt, padded(rows), steps), scanned(keys, prompt, rows))
    assert run._cache_size() == 1


def test_a_trace_needs_the_grid_without_padding():
    sampler = MaskedSampler(denoiser, PROCESS, POLICIES["confidence"], Draw(MASK), "none", trace=1)
    with refused("steps: a trace has as many states"):
        sampler(0.7, keys_of(1), jnp.full((1, LENGTH), MASK), padded(ROWS), steps=LENGTH)
