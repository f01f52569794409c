"""What a predictor is told are errors: every label by its definition, augmentations, and masks of its own.

Denoisers are given as functions whose draws are known, so that labels can be said beforehand.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.error_labels import Augment, fill_masks_in_steps
from diffusion.objectives.error_prediction import ErrorPrediction
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws, draws, fold
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import DigitDraw
from diffusion.schedules import masking as schedules
from tests.objectives.error_examples import (
    BATCH,
    BATCHES,
    LENGTH,
    NOISE,
    NOTHING,
    PRIME,
    PROCESS,
    TOKENS,
    VOCAB,
    WEIGHTS,
    Sure,
    always,
    at_time,
    examples,
    objective,
    point,
    undecided,
)

# Labels.


def test_one_step_labels_of_a_denoiser_that_knows_one_token():
    made = examples(objective(), NOTHING, BATCHES, NOISE)
    noisy = PROCESS.corrupt(NOISE.keys, TOKENS, 1e-3 + (1 - 1e-3) * NOISE.uniform)
    hidden = (noisy == VOCAB) & (WEIGHTS > 0)
    assert 5 < hidden.sum() < WEIGHTS.sum() - 5
    np.testing.assert_array_equal(made.state, np.where(hidden, 2, TOKENS))
    np.testing.assert_array_equal(made.labels, hidden & (TOKENS != 2))
    np.testing.assert_array_equal(made.drawn, noisy == VOCAB)
    assert made.labels.sum() > 3 and (hidden & (TOKENS == 2)).any()


def test_a_denoiser_that_knows_the_text_makes_no_errors():
    def oracle(params, noisy, time, cond=None, memory=None, *, keys=None):
        return point(TOKENS)

    made = examples(objective(oracle), NOTHING, BATCHES, at_time(1.0))
    np.testing.assert_array_equal(made.state, TOKENS)
    assert not np.any(made.labels) and made.drawn.all()


def test_hardly_any_errors_at_the_smallest_time():
    def half(params, noisy, time, cond=None, memory=None, *, keys=None):
        return jnp.zeros((*noisy.shape, 3))

    process = MaskedDiffusion(2, schedules.LogLinear())
    noise = draws(jax.random.key(1), "test", 0, 256)
    tokens = jnp.zeros((256, 64), jnp.int32)
    task = ErrorPrediction(half, undecided, process, Draw(2))
    batch = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}
    made = examples(task, NOTHING, batch, noise._replace(uniform=jnp.zeros(256)))
    assert 0 < made.labels.mean() < 1e-3 and made.state.max() < 2
    assert examples(task, NOTHING, batch, noise._replace(uniform=jnp.ones(256))).labels.mean() == pytest.approx(
        0.5, abs=0.02
    )


def by_quarter(params, noisy, time, cond=None, memory=None, *, keys=None):
    """All mass on the number of quarters of a unit of time that are left."""
    return point(jnp.broadcast_to(jnp.round(4 * time).astype(jnp.int32)[:, None], (len(time), noisy.shape[1])))


@pytest.mark.parametrize(
    ("schedule", "digits"),
    [(schedules.LogLinear(), 2), (schedules.Polynomial(3.0), 1), (schedules.Geometric(0.5, 20.0), 1)],
    ids=["log-linear digits", "polynomial", "geometric"],
)
def test_steps_reveal_what_the_schedule_says(schedule, digits):
    """From all masks at t = 1: the symbols that show which step they were revealed in follow the mask levels."""
    process = (
        MaskedDiffusion(VOCAB, schedule)
        if digits == 1
        else PartialMaskedDiffusion(SubtokenCodec(VOCAB, 2), schedule, carry_over=False)
    )
    draw = Draw(VOCAB) if digits == 1 else DigitDraw(process, Draw(VOCAB))
    length, keys = 300, fold(NOISE.keys, "steps")

    @jax.jit
    def run(keys):
        def denoise(state, time):
            return by_quarter({}, jnp.zeros((BATCH, length)), time)

        start, time = process.prior(BATCH, length), jnp.ones(BATCH)
        return fill_masks_in_steps(denoise, process, draw, keys, denoise(start, time), start, time, 4)

    state = run(keys)
    assert state.max() < process.mask_id
    level = np.asarray(schedule.masked(np.array([0, 0.25, 0.5, 0.75, 1])))
    level[0] = 0  # the last step fills what is left, also where a schedule begins above 0
    chance = np.diff(level) / level[-1]  # of symbols that are revealed with 1, 2, 3, 4 quarters left
    # Of the lower digit of base 3: quarters 1, 2, 3 = (1, 0), 4 = (1, 1).
    symbols = np.asarray(state) if digits == 1 else np.asarray(state)[:, 1::2]
    expected = {1: chance[0], 2: chance[1], 3: chance[2], 4: chance[3]}
    expected = expected if digits == 1 else {0: chance[2], 1: chance[0] + chance[3], 2: chance[1]}
    for symbol, share in expected.items():
        error = np.sqrt(share * (1 - share) / symbols.size)
        assert abs((symbols == symbol).mean() - share) < 4 * error + 1e-9, symbol


def test_consistency_asks_whether_more_steps_would_agree():
    """A denoiser that never changes its mind makes no errors, right or wrong; one that does, where it does."""
    noise = at_time(1.0)
    assert not np.any(examples(objective(labels="consistency"), NOTHING, BATCHES, noise).labels)
    made = examples(objective(by_quarter, labels="consistency"), NOTHING, BATCHES, noise)
    hidden = made.drawn & (WEIGHTS > 0)
    assert (made.state[hidden] == 4).all()  # what one step fills in at t = 1
    assert 0.5 < made.labels[hidden].mean() < 0.95 and not np.any(made.labels[~hidden])
    single = examples(objective(by_quarter, labels="consistency", steps=1), NOTHING, BATCHES, noise)
    assert not np.any(single.labels)


def test_corruption_exchanges_a_fraction_of_the_text_and_runs_no_denoiser():
    def refuse(*args, **options):
        raise AssertionError("no denoiser is needed")

    many = MaskedDiffusion(10**6, schedules.LogLinear())
    task = objective(refuse, process=many, labels="corruption", corruption=0.25)
    tokens = jnp.zeros((BATCH, LENGTH), jnp.int32)
    made = examples(task, NOTHING, BATCHES | {"tokens": tokens}, NOISE)
    np.testing.assert_array_equal((made.state != 0).sum(axis=1), [3, 2, 3, 1])
    np.testing.assert_array_equal(made.labels, made.state != 0)
    assert not np.any(made.state * (1 - WEIGHTS))
    made = examples(replace(task, corruption=0.0), NOTHING, BATCHES | {"tokens": tokens}, NOISE)
    np.testing.assert_array_equal(made.labels.sum(axis=1), [1, 1, 1, 1])
    # An exchange for the same token is no error.
    task = objective(refuse, process=MaskedDiffusion(2, schedules.LogLinear()), labels="corruption", corruption=1.0)
    made = examples(task, NOTHING, {"tokens": TOKENS % 2, "weights": jnp.ones(TOKENS.shape)}, NOISE)
    np.testing.assert_array_equal(made.labels, made.state != TOKENS % 2)
    assert 0.2 < made.labels.mean() < 0.8


def test_likelihood_asks_a_judge_that_reads_what_came_before():
    """This judge expects the successor of every token; the mask, to which it gives nearly all, must not count."""

    def judge(params, inputs, time, cond=None, memory=None, *, keys=None):
        chances = jnp.log(jnp.where(jax.nn.one_hot((inputs + 1) % VOCAB, VOCAB + 1) > 0, params["right"], 0.01))
        return jnp.where((jnp.arange(VOCAB + 1) == VOCAB)[None, None], 50.0, chances)

    def text(params, noisy, time, cond=None, memory=None, *, keys=None):
        return point(jnp.broadcast_to(line, noisy.shape))

    line = jnp.array([[5, 6, 7, 2, 3, 4, 8, 0, 1, 2, 2, 3]])
    params = NOTHING | {"judge": {"right": jnp.array(0.92)}}
    batch = BATCHES | {"weights": jnp.ones(TOKENS.shape)}
    task = objective(text, labels="likelihood", judge=judge, threshold=3.0)
    made = examples(task, params, batch, at_time(1.0))
    rows = made.drawn.all(axis=1)
    assert rows.any()
    np.testing.assert_array_equal(made.state[rows], jnp.broadcast_to(line, (int(rows.sum()), LENGTH)))
    expected = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0])  # 0 is the successor of 8
    np.testing.assert_array_equal(made.labels[rows], np.broadcast_to(expected, (int(rows.sum()), LENGTH)))
    # -log 0.01 = 4.605 nats: at a threshold above it nothing is wrong.
    assert not np.any(examples(replace(task, threshold=4.7), params, batch, at_time(1.0)).labels)
    assert np.all(examples(replace(task, threshold=0.01), params, batch, at_time(1.0)).labels[:, 1:])


# Masks of its own.


@pytest.mark.parametrize("process", [PROCESS, PRIME], ids=["tokens", "digits"])
def test_own_masks_are_as_many_as_the_schedule_says_and_fall_on_suspects(process):
    suspect = (jnp.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) * 5) % 7 < 2

    def suspicious(denoiser, params, state, label=None, *, keys=None):
        return jnp.where(suspect, 50.0, 0.0)

    time = jnp.array([0.05, 0.5, 0.8, 1.0])
    task = objective(always(2, VOCAB), suspicious, process, own_masks=True)

    @jax.jit
    def run():
        noisy = process.corrupt(NOISE.keys, TOKENS, time)

        def denoise(state, time):
            return task.denoiser({}, state, time)

        return noisy, task.remask(NOTHING, BATCHES, denoise, NOISE.keys, noisy, time)

    noisy, state = (np.asarray(array) for array in run())
    masked = state == process.mask_id
    counted, suspects = (np.asarray(array).repeat(process.subtokens, axis=1) for array in (WEIGHTS > 0, suspect))
    number = np.ceil(0.999 * np.asarray(time, np.float64) * counted.sum(axis=1))
    np.testing.assert_array_equal(masked.sum(axis=1), number)
    assert not (masked & ~counted).any()
    suspects = suspects & counted
    np.testing.assert_array_equal((masked & suspects).sum(axis=1), np.minimum(number, suspects.sum(axis=1)))
    # What is not masked is the first filling.
    known, clean = noisy != process.mask_id, np.asarray(process.encode(TOKENS))
    kept = ~masked & (known | ~counted)
    np.testing.assert_array_equal(state[kept], clean[kept])
    filling = np.asarray(process.encode(jnp.full((BATCH, LENGTH), 2)))
    hidden = (~known).reshape(BATCH, LENGTH, -1).all(axis=-1).repeat(process.subtokens, axis=1)
    fresh = ~masked & hidden & counted
    assert fresh.any()
    np.testing.assert_array_equal(state[fresh], filling[fresh])


def test_own_masks_let_the_predictor_see_older_mistakes():
    """Tokens that a first filling got wrong and that were not masked again stay wrong."""
    plain = examples(objective(), NOTHING, BATCHES, at_time(0.5))
    again = examples(objective(own_masks=True), NOTHING, BATCHES, at_time(0.5))
    assert not np.any(plain.labels * ~plain.drawn)
    assert np.any(again.labels * ~again.drawn)
    np.testing.assert_array_equal(again.drawn.sum(axis=1), np.ceil(0.999 * 0.5 * WEIGHTS.sum(axis=1)))


# An example's own.


def flat(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Every token may be drawn."""
    return jnp.zeros((len(noisy), LENGTH, VOCAB))


def settings():
    everything = Augment(uniform=0.2, unigram=0.2, shuffle=0.7)
    for labels in ("one_step", "corruption", "consistency"):
        draw = Draw if labels == "one_step" else Sure
        yield objective(by_quarter, labels=labels, draw=draw, augment=everything)
    yield objective(flat, draw=Draw, own_masks=True, augment=Augment(semantic=0.3))
    yield objective(flat, process=PRIME, draw=Draw, labels="consistency")


@pytest.mark.parametrize("task", list(settings()), ids=["one_step", "corruption", "consistency", "own_masks", "digits"])
def test_an_examples_noise_is_its_own(task):
    whole = examples(task, NOTHING, BATCHES, NOISE)
    rows = jnp.array([2, 1])
    part = examples(
        task,
        NOTHING,
        {name: array[rows] for name, array in BATCHES.items()},
        Draws(NOISE.keys[rows], NOISE.uniform[rows]),
    )
    for all_rows, two in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[rows], two)
    other = examples(task, NOTHING, BATCHES, NOISE._replace(keys=fold(NOISE.keys, 1)))
    assert np.any(whole.state != other.state)
    assert whole.state.max() < task.process.mask_id, "a full state has no masks"
