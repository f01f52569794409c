"""Labels of the error predictor, by their definitions, and the masks that it selects itself.

The draws of the denoisers are known, so that the expected labels are too.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.error_labels import fill_masks_in_steps
from diffusion.processes.masking import MaskedDiffusion
from diffusion.readout import of_logits
from diffusion.rng import Draws, fold
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import SubtokenDraw
from diffusion.schedules import masking as schedules
from tests.checks import within
from tests.languages import denoiser_of
from tests.objectives.error_examples import (
    BATCH,
    BATCHES,
    LENGTH,
    NOISE,
    PARAMS,
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
)

# Labels.


def test_one_step_labels_of_a_denoiser_that_predicts_one_token():
    batch_examples = examples(objective(), PARAMS, BATCHES, NOISE)
    noisy = PROCESS.corrupt(NOISE.keys, TOKENS, 1e-3 + (1 - 1e-3) * NOISE.uniform)
    hidden = (noisy == VOCAB) & (WEIGHTS > 0)
    assert 5 < hidden.sum() < WEIGHTS.sum() - 5
    np.testing.assert_array_equal(batch_examples.state, np.where(hidden, 2, TOKENS))
    np.testing.assert_array_equal(batch_examples.labels, hidden & (TOKENS != 2))
    np.testing.assert_array_equal(batch_examples.drawn, noisy == VOCAB)
    assert batch_examples.labels.sum() > 3 and (hidden & (TOKENS == 2)).any()


def test_constant_time_is_that_of_all_texts():
    """The denoiser predicts the number of quarters of its time, 2 at time 1/2 whatever the noise of the times."""
    batch_examples = examples(objective(by_quarter, time=0.5), PARAMS, BATCHES, NOISE)
    noisy = PROCESS.corrupt(NOISE.keys, TOKENS, jnp.full(BATCH, 0.5))
    hidden = (noisy == VOCAB) & (WEIGHTS > 0)
    assert 5 < hidden.sum() < WEIGHTS.sum() - 5
    np.testing.assert_array_equal(batch_examples.state, np.where(hidden, 2, TOKENS))
    np.testing.assert_array_equal(batch_examples.labels, hidden & (TOKENS != 2))


def by_quarter(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A denoiser that predicts the number of quarters of a unit of time that are left."""
    return point(jnp.broadcast_to(jnp.round(4 * time).astype(jnp.int32)[:, None], (len(time), noisy.shape[1])))


@pytest.mark.parametrize(
    "process",
    [
        replace(PRIME, carry_over=False),
        # Its level is above 0 at t = 0; the last step reveals all the same.
        MaskedDiffusion(VOCAB, schedules.Geometric(0.5, 20.0)),
    ],
    ids=["log-linear digits", "geometric"],
)
def test_steps_reveal_the_fractions_of_the_schedule(process):
    """From all masks at t = 1; the symbols tell the step in which they are revealed."""
    digits, length = process.subtokens, 300
    draw = Sure(VOCAB) if digits == 1 else SubtokenDraw(process, Sure(VOCAB))

    @jax.jit
    def run(keys):
        def denoise(state, time):
            return by_quarter({}, jnp.zeros((BATCH, length)), time)

        start, time = jnp.full((BATCH, length * digits), process.mask_id), jnp.ones(BATCH)
        return fill_masks_in_steps(denoise, process, draw, keys, of_logits(denoise(start, time)), start, time, 4)

    state = np.asarray(run(fold(NOISE.keys, "steps")))
    assert state.max() < process.mask_id
    level = np.asarray(process.schedule.masked(np.array([0, 0.25, 0.5, 0.75, 1])))
    probs = np.diff([0, *level[1:]]) / level[-1]  # of being revealed with 1, 2, 3, 4 quarters left
    # The last sub-tokens, in base 3, of the numbers of quarters: 1, 2, 3 = (1, 0), 4 = (1, 1).
    symbols, expected = state[:, digits - 1 :: digits], dict(enumerate(probs, 1))
    for symbol, share in (expected if digits == 1 else {0: probs[2], 1: probs[0] + probs[3], 2: probs[1]}).items():
        assert within(symbols == symbol, share, symbols.size), symbol


def test_consistency_labels_are_differences_from_several_steps():
    """A denoiser whose prediction is constant has no errors, even if it is wrong."""
    noise = at_time(1.0)
    assert not np.any(examples(objective(labels="consistency", steps=2), PARAMS, BATCHES, noise).labels)
    batch_examples = examples(objective(by_quarter, labels="consistency"), PARAMS, BATCHES, noise)
    hidden = batch_examples.drawn & (WEIGHTS > 0)
    assert (batch_examples.state[hidden] == 4).all()  # the prediction at t = 1
    assert 0.5 < batch_examples.labels[hidden].mean() < 0.95 and not np.any(batch_examples.labels[~hidden])
    single = examples(objective(by_quarter, labels="consistency", steps=1), PARAMS, BATCHES, noise)
    assert not np.any(single.labels)


@pytest.mark.parametrize(
    ("vocabulary", "corruption", "number"),
    [(10**6, 0.25, [3, 2, 3, 1]), (10**6, 0.0, [1, 1, 1, 1]), (2, 1.0, [12, 9, 12, 4])],
)
def test_corruption_replaces_a_fraction_of_the_text_without_the_denoiser(vocabulary, corruption, number):
    """Of many tokens every replacement is an error; replacement by the same of two tokens is none."""

    def never(*args, **options):
        raise AssertionError("the denoiser must not be called")

    process = MaskedDiffusion(vocabulary, schedules.LogLinear())
    task = objective(never, process=process, labels="corruption", corruption=corruption)
    batch_examples = examples(task, PARAMS, BATCHES | {"tokens": 0 * TOKENS}, NOISE)
    np.testing.assert_array_equal(batch_examples.labels, batch_examples.state != 0)
    assert not np.any(batch_examples.state * (1 - WEIGHTS))
    errors = np.asarray(batch_examples.labels.sum(axis=1))
    assert np.array_equal(errors, number) if vocabulary > 2 else (errors < number).all() and errors.sum() > 5


def test_subtokens_of_a_token_are_corrupted_together():
    batch_examples = examples(objective(process=PRIME, labels="corruption", corruption=0.5), PARAMS, BATCHES, NOISE)
    tokens = PRIME.decode(batch_examples.state)
    assert tokens.max() < VOCAB, "every code has a token"
    np.testing.assert_array_equal(batch_examples.labels, tokens != TOKENS)
    assert 0 < batch_examples.labels.sum(axis=1).max() <= LENGTH / 2


def test_likelihood_labels_are_improbable_tokens_under_the_judge():
    """This judge predicts the successor of every token; its mass on the mask must not count."""

    def judge(params, inputs, time, cond=None, memory=None, *, keys=None):
        logits = jnp.log(jnp.where(jax.nn.one_hot((inputs + 1) % VOCAB, VOCAB + 1) > 0, params["right"], 0.01))
        return jnp.where((jnp.arange(VOCAB + 1) == VOCAB)[None, None], 50.0, logits)

    line = jnp.array([[5, 6, 7, 2, 3, 4, 8, 0, 1, 2, 2, 3]])
    text = denoiser_of(lambda noisy, time: point(jnp.broadcast_to(line, noisy.shape)))
    params = PARAMS | {"judge": {"right": jnp.array(0.92)}}
    batch = BATCHES | {"weights": jnp.ones(TOKENS.shape)}
    task = objective(text, labels="likelihood", judge=judge)
    expected = np.array([0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0])  # 0 is the successor of 8
    # -log 0.01 = 4.605 nats: above this threshold there are no errors.
    for threshold, labels in ((3.0, expected), (4.7, 0 * expected)):
        batch_examples = examples(replace(task, threshold=threshold), params, batch, at_time(1.0))
        rows = np.asarray(batch_examples.drawn.all(axis=1))
        assert rows.any()
        np.testing.assert_array_equal(batch_examples.state[rows], np.tile(line, (rows.sum(), 1)))
        np.testing.assert_array_equal(batch_examples.labels[rows], np.tile(labels, (rows.sum(), 1)))


# Masks that the predictor selects.


@pytest.mark.parametrize("process", [PROCESS, PRIME], ids=["tokens", "digits"])
def test_own_masks_follow_the_schedule_and_the_error_logits(process):
    is_error = (jnp.arange(BATCH * LENGTH).reshape(BATCH, LENGTH) * 5) % 7 < 2

    def error_logits(denoiser, params, state, label=None, *, keys=None):
        return jnp.where(is_error, 50.0, 0.0)

    time = jnp.array([0.05, 0.5, 0.8, 1.0])
    task = objective(always(2, VOCAB), error_logits, process, own_masks=True)

    @jax.jit
    def run():
        noisy = process.corrupt(NOISE.keys, TOKENS, time)

        def denoise(state, time):
            return task.denoiser({}, state, time)

        return noisy, task.remask(PARAMS, BATCHES, denoise, NOISE.keys, noisy, time)

    noisy, state = (np.asarray(array) for array in run())
    masked = state == process.mask_id
    counted, errors = (np.asarray(array).repeat(process.subtokens, axis=1) for array in (WEIGHTS > 0, is_error))
    number = np.ceil(0.999 * np.asarray(time, np.float64) * counted.sum(axis=1))
    np.testing.assert_array_equal(masked.sum(axis=1), number)
    assert not (masked & ~counted).any()
    errors = errors & counted
    np.testing.assert_array_equal((masked & errors).sum(axis=1), np.minimum(number, errors.sum(axis=1)))
    # Positions that are not masked again have their clean value or the first draw.
    unmasked, clean = noisy != process.mask_id, np.asarray(process.encode(TOKENS))
    unchanged = ~masked & (unmasked | ~counted)
    np.testing.assert_array_equal(state[unchanged], clean[unchanged])
    prediction = np.asarray(process.encode(jnp.full((BATCH, LENGTH), 2)))
    hidden = (~unmasked).reshape(BATCH, LENGTH, -1).all(axis=-1).repeat(process.subtokens, axis=1)
    drawn = ~masked & hidden & counted
    assert drawn.any()
    np.testing.assert_array_equal(state[drawn], prediction[drawn])


def test_own_masks_leave_errors_of_the_first_draw():
    """Wrong tokens of the first draw that are not masked again remain errors."""
    plain = examples(objective(), PARAMS, BATCHES, at_time(0.5))
    again = examples(objective(own_masks=True), PARAMS, BATCHES, at_time(0.5))
    assert not np.any(plain.labels * ~plain.drawn)
    assert np.any(again.labels * ~again.drawn)
    np.testing.assert_array_equal(again.drawn.sum(axis=1), np.ceil(0.999 * 0.5 * WEIGHTS.sum(axis=1)))


# Independence of the batch.


def settings():
    flat = denoiser_of(lambda noisy, time: jnp.zeros((len(noisy), LENGTH, VOCAB)))
    yield objective(by_quarter, labels="corruption")
    yield objective(flat, draw=Draw, own_masks=True)
    yield objective(flat, process=PRIME, draw=Draw, labels="consistency", steps=2)


@pytest.mark.parametrize("task", list(settings()), ids=["corruption", "own_masks", "digits"])
def test_noise_of_an_example_does_not_depend_on_the_batch(task):
    whole, rows = examples(task, PARAMS, BATCHES, NOISE), np.array([2, 1, 1, 2])
    batch = {name: array[rows] for name, array in BATCHES.items()}
    part = examples(task, PARAMS, batch, Draws(NOISE.keys[rows], NOISE.uniform[rows]))
    for all_rows, two in zip(whole, part, strict=True):
        np.testing.assert_array_equal(all_rows[rows], two)
    other = examples(task, PARAMS, BATCHES, NOISE._replace(keys=fold(NOISE.keys, 1)))
    assert np.any(whole.state != other.state)
    assert whole.state.max() < task.process.mask_id, "a full state has no masks"
