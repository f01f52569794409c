"""The masked and the next-token loss: worked examples, gradients, and expectations under exact and wrong denoisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.objectives.autoregressive import NextToken, shift_right
from diffusion.objectives.elbo import Nelbo, sample_times, weighted_cross_entropy
from diffusion.objectives.reveal import RevealNelbo
from diffusion.oracles.enumerable import random_language
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import Draws, draws, fold
from diffusion.schedules import masking as schedules
from tests.checks import deviation
from tests.languages import denoiser_of, lookup
from tests.weights import keys_of

MASK, LENGTH = 5, 4
PROCESS = MaskedDiffusion(MASK, schedules.Linear())
CLEAN = np.array([[1, 2, 3, 4]])
CLEAN_PROBS = np.array([0.9, 0.5, 0.7, 0.25])


def table(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A network whose parameters are its logits [1, L, K + 1]."""
    return jnp.broadcast_to(params, (len(noisy), *params.shape[1:]))


def clean_logits():
    """Logits [1, L, K + 1] that give the tokens of CLEAN these probabilities; the mask's class has nearly all mass."""
    probs = np.tile((1 - CLEAN_PROBS)[:, None] / (MASK - 1), (1, MASK))
    probs[np.arange(LENGTH), CLEAN[0]] = CLEAN_PROBS
    return jnp.asarray(np.pad(np.log(probs), ((0, 0), (0, 1)), constant_values=20.0)[None], jnp.float32)


LOGITS = clean_logits()
NELBO, NEXT = Nelbo(table, PROCESS, 0.0), NextToken(table, PROCESS)
OBJECTIVES = pytest.mark.parametrize("objective", [NELBO, NEXT], ids=["nelbo", "next"])


def noise_that_masks(hidden, time=0.5):
    """Find draws whose corruption at `time` masks exactly these positions."""
    keys, times = keys_of(1000), jnp.full(1000, time)
    masked = jax.jit(PROCESS.corrupt)(keys, np.tile(CLEAN, (1000, 1)), times) == MASK
    index = int(np.argmax((np.asarray(masked) == np.array(hidden)).all(axis=1)))
    assert (masked[index] == np.array(hidden)).all(), "no key masks these positions"
    return Draws(keys[index : index + 1], times[:1])


NOISE = noise_that_masks([False, True, False, True])


@partial(jax.jit, static_argnames="objective")
def run(objective, params, batch, noise):
    return objective(params, batch, noise)


def batch_of(tokens, weights=None):
    return {"tokens": tokens, "weights": np.ones(tokens.shape, np.float32) if weights is None else weights}


def per_token(objective, noise=NOISE):
    total, metrics = run(objective, LOGITS, batch_of(CLEAN), noise)
    assert metrics["loss"][0] == total
    return float(total / metrics["loss"][1])


def test_worked_examples():
    """With two of four tokens masked, p = 1/2 and 1/4: (ln 2 + ln 4) / t / 4 nats per token, 1.039721 at t = 1/2.

    The weight is 1 / t for the linear and the log-linear schedule.
    """
    log_linear = Nelbo(table, MaskedDiffusion(MASK, schedules.LogLinear()), 0.0)
    for time, expected in ((0.25, 2.079442), (0.5, 1.039721), (0.75, 0.693147)):
        for objective in (NELBO, log_linear):
            noise = noise_that_masks([False, True, False, True], time)
            assert per_token(objective, noise) == pytest.approx(expected, rel=1e-5)
    assert per_token(NEXT) == pytest.approx(-np.log(CLEAN_PROBS).mean(), rel=1e-5)
    np.testing.assert_array_equal(shift_right(CLEAN, MASK), [[MASK, 1, 2, 3]])


def test_a_given_first_token_is_the_input_and_not_scored():
    """The output at position i is for token i + 1, and a window of L tokens has L - 1."""
    log_p = np.asarray(jax.nn.log_softmax(LOGITS[0, :, :MASK]))
    expected = -np.mean([log_p[index, CLEAN[0, index + 1]] for index in range(LENGTH - 1)])
    objective = NextToken(table, PROCESS, given_first=True)
    total, metrics = run(objective, LOGITS, batch_of(CLEAN), NOISE)
    assert metrics["loss"][1] == LENGTH - 1
    assert float(total) / (LENGTH - 1) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_zero_at_unmasked_positions():
    grads, _ = jax.jit(jax.grad(NELBO, has_aux=True))(LOGITS, batch_of(CLEAN), NOISE)
    # At masked positions it is the weight 2 times softmax minus one-hot; the mask's class has no gradient.
    probs = np.exp(np.asarray(LOGITS[0]))
    probs[:, MASK] = 0
    expected = 2 * (probs - np.eye(MASK + 1)[CLEAN[0]])
    expected[[0, 2]] = 0
    np.testing.assert_allclose(grads[0], expected, atol=1e-6)
    assert not grads[0, np.array([0, 2])].any()


@OBJECTIVES
def test_padding_is_neither_scored_nor_counted(objective):
    """This holds for every token at padded positions, including the padding symbol after the mask."""
    values = []
    for last in (4, 0, MASK + 1):
        batch = batch_of(np.array([[1, 2, 3, last]]), np.array([[1, 1, 1, 0]], np.float32))
        total, metrics = run(objective, LOGITS, batch, NOISE)
        assert metrics["loss"][1] == 3
        values.append(float(total))
    assert values[0] == values[1] == values[2] > 0
    extra = np.log(4) / 0.5 if objective is NELBO else np.log(4)
    assert 4 * per_token(objective) - values[0] == pytest.approx(extra, rel=1e-5)


@OBJECTIVES
def test_loss_is_float32_for_bfloat16_logits(objective):
    """Only the logits are rounded; log-softmax in bfloat16 would be wrong in the second digit."""
    rounded = LOGITS.astype(jnp.bfloat16)
    total, metrics = run(objective, rounded, batch_of(CLEAN), NOISE)
    again, _ = run(objective, rounded.astype(jnp.float32), batch_of(CLEAN), NOISE)
    assert total.dtype == metrics["loss"][0].dtype == jnp.float32
    assert float(total) == pytest.approx(float(again), rel=1e-6)


@pytest.mark.parametrize(
    "kind", [partial(Nelbo, process=PROCESS, minimum_time=0.3), partial(NextToken, process=PROCESS)]
)
def test_the_network_reads_dropout_keys_in_training_only_and_times_above_the_minimum(kind):
    @partial(jax.jit, static_argnums=1)
    def inputs(noise, train):
        calls = []

        def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
            calls.append((time, keys))
            return table(params, noisy, time)

        kind(denoiser)(LOGITS, batch_of(np.tile(CLEAN, (8, 1))), noise, train)
        return calls[0]

    noise = draws(jax.random.key(1), "train", 0, 8)
    (time, keys), (_, none) = inputs(noise, True), inputs(noise, False)
    keys = jax.random.key_data(keys)
    assert none is None and len(np.unique(keys, axis=0)) == 8
    # Masks and dropout have different keys.
    assert not (keys == jax.random.key_data(fold(noise.keys, "corrupt"))).all(axis=1).any()
    if kind.func is Nelbo:
        np.testing.assert_allclose(time, 0.3 + 0.7 * noise.uniform, rtol=1e-6)
        assert np.ptp(time) > 0.5


LANGUAGE = random_language(0, vocabulary=3, length=3)
WRONG = lookup(4, 3, (3, 4), 0.7, timed=False)


def test_next_token_loss_is_the_negative_log_probability_under_the_oracle():
    objective = NextToken(denoiser_of(LANGUAGE.next_token), MaskedDiffusion(3, schedules.Linear()))
    noise = draws(jax.random.key(0), "train", 0, 1)
    one = jax.vmap(lambda row: objective(None, batch_of(row[None]), noise)[0])
    np.testing.assert_allclose(-jax.jit(one)(LANGUAGE.sequences), LANGUAGE.log_prob(LANGUAGE.sequences), rtol=1e-4)


def test_mean_of_the_reveal_loss_is_the_bound():
    """Law 1 for the objective as in training, with padding; its noise is smaller than that of `Nelbo`."""
    denoiser, process = denoiser_of(WRONG), MaskedDiffusion(3, schedules.Linear())
    tokens = np.tile(LANGUAGE.sequences, (64, 1))
    weights = np.ones(tokens.shape, np.float32)
    weights[:27] = 0
    objectives = RevealNelbo(denoiser, process), Nelbo(denoiser, process, 0.0)

    @jax.jit
    def totals(root):
        def once(step):
            noise = draws(root, "train", step, len(tokens))
            return jnp.stack([objective(None, batch_of(tokens, weights), noise)[0] for objective in objectives])

        return jax.lax.map(once, jnp.arange(64))

    reveal, textbook = np.asarray(totals(jax.random.key(2)), np.float64).T / (63 * 27)
    exact = LANGUAGE.expected_bound(WRONG).mean()
    assert abs(reveal.mean() - exact) < 4.5 * reveal.std(ddof=1) / 8
    assert reveal.std() < 0.7 * textbook.std()


def test_expected_training_loss_is_the_bound():
    """Law 1 for the training loss: for each sequence, under a wrong denoiser, with the randomness of `draws`."""
    process, batch = MaskedDiffusion(3, schedules.Linear()), np.tile(LANGUAGE.sequences, (64, 1))

    @jax.jit
    def losses(root):
        def once(step):
            noise = draws(root, "train", step, len(batch))
            # The bias of the mean over [1e-3, 1] is below a thousandth.
            time = sample_times(noise.uniform, 1e-3)
            nats = weighted_cross_entropy(process, WRONG, batch, jnp.ones(batch.shape), time, noise)
            return nats.reshape(64, -1).mean(axis=0)

        return jax.lax.map(once, jnp.arange(32))

    nats = np.asarray(losses(jax.random.key(9)), np.float64)
    assert deviation(nats, LANGUAGE.expected_bound(WRONG)) < 4.5
