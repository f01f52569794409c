"""Properties of the masked sampler without a trained network: mask counts, prompts, independence, costs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import example_keys
from diffusion.sampling.masked.blocks import semi_autoregressive
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import exact_masks, grid
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
from diffusion.schedules.masking import Cosine, Linear, LogLinear, Loop

MASK, LENGTH, STEPS = 5, 12, 8
SCHEDULE = Linear()
PROCESS = MaskedDiffusion(MASK, SCHEDULE)

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


def make(policy, schedule=SCHEDULE, final="none", precision="exact"):
    return MaskedSampler(denoiser, MaskedDiffusion(MASK, schedule), policy, Draw(MASK, precision), final)


def make_grid(policy, steps=STEPS, schedule=SCHEDULE):
    return grid(schedule, LENGTH if policy == "first_hitting" else steps, LENGTH, end=0.0)


@pytest.fixture(scope="module")
def run():
    """Return `run(name, keys, prompt)`, compiled once per policy."""
    compiled = {
        name: jax.jit(partial(make(policy, precision="mdlm_float32" if name == "race" else "exact"), 0.3))
        for name, policy in POLICIES.items()
    }
    return lambda name, keys, prompt: compiled[name](keys, prompt, make_grid(name))


def keys_of(indices, seed=0):
    return example_keys(jax.random.key(seed), jnp.asarray(indices))


@pytest.mark.parametrize("name", POLICIES)
def test_samples_have_no_masks_and_preserve_the_prompt(run, name):
    prompt = jnp.full((4, LENGTH), MASK).at[:, ::3].set(2).at[3].set(1)
    samples = run(name, keys_of(range(4)), prompt)
    fixed = np.asarray(prompt != MASK)
    assert (samples.tokens < MASK).all()
    np.testing.assert_array_equal(np.asarray(samples.tokens)[fixed], np.asarray(prompt)[fixed])
    steps = len(make_grid(name).index)
    assert (samples.evaluations == steps).all()
    assert samples.idle[3] == steps  # all positions are in the prompt


@pytest.mark.parametrize("name", POLICIES)
def test_sample_does_not_depend_on_the_batch_around_it(run, name):
    prompt = jnp.full((4, LENGTH), MASK)
    together = run(name, keys_of(range(4)), prompt).tokens
    reordered = run(name, keys_of([3, 1, 0, 2]), prompt).tokens
    alone = jax.jit(partial(make(POLICIES[name], precision="mdlm_float32" if name == "race" else "exact"), 0.3))(
        keys_of([2]), prompt[:1], make_grid(name)
    ).tokens
    np.testing.assert_array_equal(together[jnp.array([3, 1, 0, 2])], reordered)
    np.testing.assert_array_equal(together[2:3], alone)


@pytest.mark.parametrize("name", ["ancestral", "race", "random_order", "confidence"])
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Loop()], ids=repr)
def test_masked_fraction_follows_the_schedule(name, schedule):
    """Law 2, for single steps from a state with the mask level of the schedule at t."""
    rows, size, length = grid(schedule, 6, 64, end=0.0), 256, 64
    stop = rows.index.shape[0]

    def fractions(keys):
        state = jnp.full((size, length), MASK)
        levels = []
        for index in range(stop):
            row = jax.tree.map(lambda column, index=index: column[index], rows)
            step_keys = jax.vmap(lambda key, index=index: jax.random.fold_in(key, index))(keys)
            token_keys, select_keys = (
                jax.vmap(lambda key, data=data: jax.random.fold_in(key, data))(step_keys) for data in (0, 1)
            )
            draw = Draw(MASK, "mdlm_float32" if name == "race" else "exact")
            proposal = draw(token_keys, jnp.zeros((size, length, MASK + 1)), None, row.temperature, row.nucleus)
            inputs = StepInputs(state == MASK, jnp.zeros((size, length), bool), *proposal, None)
            masks, _ = POLICIES[name].select(select_keys, inputs, row, ())
            state = jnp.where(masks, MASK, jnp.where(state == MASK, proposal.tokens, state))
            levels.append((state == MASK).mean())
        return jnp.stack(levels)

    measured = jax.jit(fractions)(example_keys(jax.random.key(8), jnp.arange(size)))
    expected = schedule.masked(np.asarray(rows.next_time, np.float64))
    spread = np.sqrt(expected * (1 - expected) / (size * length))
    # Exact-count policies round up to whole tokens.
    assert np.all(np.abs(measured - expected) < 4.5 * spread + 1 / length), (measured, expected)
    if name in ("random_order", "confidence"):
        np.testing.assert_allclose(np.asarray(measured) * length, np.ceil(expected * length - 1e-4), atol=1e-3)


def test_first_hitting_reveals_one_position_per_step_at_decreasing_times():
    policy = POLICIES["first_hitting"]
    fixed = jnp.zeros((3, LENGTH), bool).at[1, :4].set(True)
    extra = policy.init(keys_of(range(3)), fixed)
    rows = make_grid("first_hitting")
    masked = ~fixed
    last = jnp.ones(3)
    for index in range(LENGTH):
        row = jax.tree.map(lambda column, index=index: column[index], rows)
        time = policy.time(extra, row, 3)
        inputs = StepInputs(masked, fixed, jnp.zeros((3, LENGTH), jnp.int32), None, None, None)
        after, extra = policy.select(None, inputs, row, extra)
        revealed = np.asarray((masked & ~after).sum(1))
        np.testing.assert_array_equal(revealed, [1, 1 if index < LENGTH - 4 else 0, 1])
        assert (time <= last).all()
        masked, last = after, time
    assert not masked.any()


def test_first_hitting_times_are_order_statistics():
    """With alpha = 1 - t the first event of n positions is the largest of n uniforms: mean n / (n + 1)."""
    policy = POLICIES["first_hitting"]
    extra = policy.init(keys_of(range(4000)), jnp.zeros((4000, 3), bool))
    row = jax.tree.map(lambda column: column[0], grid(SCHEDULE, 3, 3, end=0.0))
    time = np.asarray(policy.time(extra, row, 4000))
    assert abs(time.mean() - 0.75) < 4 * time.std() / 4000**0.5


def test_one_evaluation_per_step_and_one_for_noise_removal():
    calls = []

    def counting(params, noisy, time, cond=None, memory=None, *, keys=None):
        jax.debug.callback(lambda: calls.append(1))
        return denoiser(params, noisy, time)

    for final, expected in (("none", STEPS), ("argmax", STEPS + 1), ("draw", STEPS + 1)):
        calls.clear()
        sampler = MaskedSampler(counting, PROCESS, POLICIES["ancestral"], Draw(MASK), final)
        samples = jax.jit(sampler)(0.3, keys_of([0]), jnp.full((1, LENGTH), MASK), grid(SCHEDULE, STEPS, LENGTH))
        jax.effects_barrier()
        assert len(calls) == expected == int(samples.evaluations[0])


def test_idle_steps_of_the_ancestral_sampler_match_their_expectation():
    """The idle-step ratio of MDM-Prime is (1 - 1/T)^L, which is 0.343609 for L = T = 8."""
    size = 1500
    sampler = jax.jit(partial(make(POLICIES["ancestral"]), 0.3))
    samples = sampler(keys_of(range(size)), jnp.full((size, 8), MASK), grid(SCHEDULE, 8, 8, end=0.0))
    share = np.asarray(samples.idle) / 8
    assert abs(share.mean() - 0.343609) < 4 * share.std() / size**0.5


def test_counts_are_exact_where_float32_would_round_up():
    np.testing.assert_array_equal(
        exact_masks(np.array([0.1, 0.0, 1.0]), 1000)[:, [0, 10, 1000]], [[0, 1, 100], [0, 0, 0], [0, 10, 1000]]
    )


def test_low_precision_rule_cannot_draw_rare_tokens():
    """In the first of a million steps the smallest noise can draw a token of 50 %, but not one of 1 %."""
    row = jax.tree.map(lambda column: column[0], grid(SCHEDULE, 1_000_000, 4, end=0.0))
    masked, smallest_noise = jnp.ones((2, 4000), bool), -np.log1p(-(2.0**-23))
    revealed = {}
    for prob in (0.01, 0.5):
        inputs = StepInputs(masked, ~masked, None, None, jnp.full(masked.shape, prob / smallest_noise), None)
        stays, _ = race_step(keys_of(range(2)), inputs, row, ())
        revealed[prob] = 1 - float(stays.mean())
    assert revealed[0.01] < 1e-3 and revealed[0.5] > 0.5, revealed


def test_semi_autoregressive_windows_keep_previous_tokens():
    sample = partial(make(POLICIES["random_order"]), 0.3)
    prompt = jnp.full((2, 2 * LENGTH), MASK).at[:, 1].set(4)
    samples = jax.jit(
        lambda keys: semi_autoregressive(
            lambda window_keys, window: sample(window_keys, window, make_grid("random_order")),
            keys,
            prompt,
            LENGTH,
            LENGTH // 2,
        )
    )(keys_of(range(2)))
    assert samples.tokens.shape == (2, 2 * LENGTH)
    assert (samples.tokens < MASK).all() and (samples.tokens[:, 1] == 4).all()
    assert (samples.evaluations == 3 * STEPS).all()
    with pytest.raises(ValueError, match=r"sample\.stride"):
        semi_autoregressive(sample, keys_of(range(2)), prompt, LENGTH, 5)


def test_sampler_compiles_once_for_a_sweep_of_temperatures():
    traces = []

    def traced(*inputs, **options):
        traces.append(1)
        return denoiser(*inputs, **options)

    sampler = jax.jit(MaskedSampler(traced, PROCESS, POLICIES["ancestral"], Draw(MASK, nucleus="standard"), "none"))
    for temperature in (0.5, 1.0, 2.0):
        table = grid(SCHEDULE, STEPS, LENGTH, end=0.0, temperature=temperature, nucleus=0.9)
        sampler(0.3, keys_of([0]), jnp.full((1, LENGTH), MASK), table)
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"end": 1.0}, "end"),
        ({"temperature": -1.0}, "temperature"),
        ({"nucleus": 0.0}, "nucleus"),
    ],
)
def test_bad_grids_name_their_field(options, field):
    with pytest.raises(ValueError, match=rf"sample\.{field}"):
        grid(LogLinear(), **({"steps": 4, "length": 4} | options))
