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
from diffusion.oracles.tables import random_denoiser
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import Draws, draws, example_keys, fold
from diffusion.schedules import masking as schedules
from tests.checks import deviation
from tests.languages import denoiser_of

MASK, LENGTH = 5, 4
PROCESS = MaskedDiffusion(MASK, schedules.Linear())
CLEAN = jnp.array([[1, 2, 3, 4]])


def table(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A network whose parameters are its logits [1, L, K + 1]."""
    return jnp.broadcast_to(params, (len(noisy), *params.shape[1:]))


def logits_of(clean_probs):
    """Logits [1, L, K + 1] that give the tokens of CLEAN these probabilities; the mask's class has nearly all mass."""
    rest = jnp.broadcast_to(((1 - jnp.array(clean_probs)) / (MASK - 1))[:, None], (LENGTH, MASK))
    probs = jnp.where(jax.nn.one_hot(CLEAN[0], MASK) > 0, jnp.array(clean_probs)[:, None], rest)
    return jnp.pad(jnp.log(probs), ((0, 0), (0, 1)), constant_values=20.0)[None]


LOGITS = logits_of([0.9, 0.5, 0.7, 0.25])


def noise_that_masks(hidden, time=0.5):
    """Find draws whose corruption at `time` masks exactly these positions."""
    for seed in range(1000):
        keys = example_keys(jax.random.key(seed), jnp.arange(1))
        if ((PROCESS.corrupt(keys, CLEAN, jnp.array([time]))[0] == MASK) == jnp.array(hidden)).all():
            return Draws(keys, jnp.array([time]))
    raise AssertionError("no seed masks these positions")


@pytest.fixture(scope="module")
def noise():
    return noise_that_masks([False, True, False, True])


@partial(jax.jit, static_argnames="objective")
def loss(objective, params, batch, noise):
    return objective(params, batch, noise)


def batch_of(tokens, weights=None):
    return {"tokens": tokens, "weights": jnp.ones(tokens.shape) if weights is None else jnp.asarray(weights)}


def per_token(objective, params, batch, noise):
    total, metrics = loss(objective, params, batch, noise)
    assert metrics["loss"][0] == total
    return float(total / metrics["loss"][1])


def test_worked_example(noise):
    """At t = 1/2, two of four tokens masked, p = 1/2 and 1/4: (ln 2 + ln 4) / (1/2) / 4 = 1.039721 nats per token."""
    value = per_token(Nelbo(table, PROCESS, 0.0), LOGITS, batch_of(CLEAN), noise)
    assert value == pytest.approx(1.039721, abs=1e-6)


@pytest.mark.parametrize("time", [0.25, 0.75])
def test_weight_is_one_over_the_time_for_the_linear_and_log_linear_schedules(time):
    noise = noise_that_masks([False, True, False, True], time)
    expected = np.log(8) / time / LENGTH
    assert per_token(Nelbo(table, PROCESS, 0.0), LOGITS, batch_of(CLEAN), noise) == pytest.approx(expected, rel=1e-5)
    log_linear = Nelbo(table, MaskedDiffusion(MASK, schedules.LogLinear()), 0.0)
    assert per_token(log_linear, LOGITS, batch_of(CLEAN), noise) == pytest.approx(expected, rel=1e-5)


def test_gradient_is_zero_at_unmasked_positions(noise):
    grads, _ = jax.jit(jax.grad(Nelbo(table, PROCESS, 0.0), has_aux=True))(LOGITS, batch_of(CLEAN), noise)
    assert not grads[0, [0, 2]].any()
    # At masked positions it is the weight 2 times softmax minus one-hot; the mask's class has no gradient.
    probs = jnp.pad(jax.nn.softmax(LOGITS[0, :, :MASK]), ((0, 0), (0, 1)))
    expected = 2 * (probs - jax.nn.one_hot(CLEAN[0], MASK + 1))
    np.testing.assert_allclose(grads[0, jnp.array([1, 3])], expected[jnp.array([1, 3])], atol=1e-6)


@pytest.mark.parametrize("objective", [Nelbo(table, PROCESS, 0.0), NextToken(table, MASK)], ids=["nelbo", "next"])
def test_padding_is_neither_scored_nor_counted(objective, noise):
    """This holds for every token at padded positions, including the padding symbol after the mask."""
    weights = [[1.0, 1.0, 1.0, 0.0]]
    values = []
    for last in (4, 0, MASK + 1):
        total, metrics = loss(objective, LOGITS, batch_of(CLEAN.at[0, 3].set(last), weights), noise)
        assert metrics["loss"][1] == 3
        values.append(float(total))
    assert values[0] == values[1] == values[2] > 0
    whole, _ = loss(objective, LOGITS, batch_of(CLEAN), noise)
    extra = {"Nelbo": np.log(4) / 0.5, "NextToken": np.log(4)}[type(objective).__name__]
    assert float(whole) - values[0] == pytest.approx(extra, rel=1e-5)


def test_worked_example_of_the_next_token_loss(noise):
    expected = -np.log([0.9, 0.5, 0.7, 0.25]).mean()
    assert per_token(NextToken(table, MASK), LOGITS, batch_of(CLEAN), noise) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(shift_right(CLEAN, MASK), [[MASK, 1, 2, 3]])


@pytest.mark.parametrize("objective", [Nelbo(table, PROCESS, 0.0), NextToken(table, MASK)], ids=["nelbo", "next"])
def test_loss_is_float32_for_bfloat16_logits(objective, noise):
    """Only the logits are rounded; log-softmax in bfloat16 would be wrong in the second digit."""
    rounded = LOGITS.astype(jnp.bfloat16)
    total, metrics = loss(objective, rounded, batch_of(CLEAN), noise)
    again, _ = loss(objective, rounded.astype(jnp.float32), batch_of(CLEAN), noise)
    assert total.dtype == metrics["loss"][0].dtype == jnp.float32
    assert float(total) == pytest.approx(float(again), rel=1e-6)


@pytest.mark.parametrize(
    "kind", [lambda denoiser: Nelbo(denoiser, PROCESS), lambda denoiser: NextToken(denoiser, MASK)]
)
def test_dropout_keys_are_passed_in_training_only(kind):
    keys_seen = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        keys_seen.append(None if keys is None else jax.random.key_data(keys))
        return table(params, noisy, time)

    objective = kind(denoiser)
    batch = batch_of(jnp.broadcast_to(CLEAN, (3, LENGTH)))
    randomness = draws(jax.random.key(0), "train", 0, 3)
    objective(LOGITS, batch, randomness)
    objective(LOGITS, batch, randomness, train=False)
    assert keys_seen[0].shape[0] == 3 and len(np.unique(keys_seen[0], axis=0)) == 3
    assert keys_seen[1] is None
    # Masks and dropout have different keys.
    assert not (keys_seen[0] == jax.random.key_data(fold(randomness.keys, "corrupt"))).all(axis=1).any()


def test_times_stay_above_the_minimum_and_reach_the_network():
    seen = []

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        seen.append(np.asarray(time))
        return table(params, noisy, time)

    randomness = draws(jax.random.key(1), "train", 0, 8)
    Nelbo(denoiser, PROCESS, 0.3)(LOGITS, batch_of(jnp.broadcast_to(CLEAN, (8, LENGTH))), randomness)
    np.testing.assert_allclose(seen[0], 0.3 + 0.7 * randomness.uniform, rtol=1e-6)
    assert np.ptp(seen[0]) > 0.5


LANGUAGE = random_language(0, vocabulary=3, length=3)


def test_next_token_loss_is_the_negative_log_probability_under_the_oracle():
    objective = NextToken(denoiser_of(LANGUAGE.next_token), 3)
    tokens = jnp.asarray(LANGUAGE.sequences)
    randomness = draws(jax.random.key(0), "train", 0, 1)

    def one(row):
        return objective(None, batch_of(row[None]), randomness)[0]

    np.testing.assert_allclose(-jax.jit(jax.vmap(one))(tokens), LANGUAGE.log_prob(tokens), rtol=1e-4)


def test_mean_of_the_reveal_loss_is_the_bound():
    """Law 1 for the objective as in training, with padding; its noise is smaller than that of `Nelbo`."""
    wrong = random_denoiser(jax.random.key(4), 3)
    denoiser = denoiser_of(lambda noisy, time: wrong(noisy, jnp.zeros_like(time)))
    process = MaskedDiffusion(3, schedules.Linear())
    tokens = jnp.tile(jnp.asarray(LANGUAGE.sequences), (64, 1))
    batch = batch_of(tokens, jnp.ones(tokens.shape).at[:27].set(0))

    @partial(jax.jit, static_argnums=0)
    def totals(objective, root):
        return jax.lax.map(
            lambda step: objective(None, batch, draws(root, "train", step, len(tokens)))[0], jnp.arange(64)
        )

    reveal, textbook = (
        np.asarray(totals(objective, jax.random.key(2)), np.float64) / (63 * 27)
        for objective in (RevealNelbo(denoiser, process), Nelbo(denoiser, process, 0.0))
    )
    exact = LANGUAGE.expected_bound(lambda noisy, time: wrong(noisy, time)).mean()
    assert abs(reveal.mean() - exact) < 4.5 * reveal.std(ddof=1) / 8
    assert reveal.std() < 0.7 * textbook.std()


def exact_at_times_above(denoise, minimum, points=4000):
    """E[loss] of every sequence [N] for alpha = 1 - t and t ~ U(minimum, 1), as a sum over all masked sets."""
    time = minimum + (1 - minimum) * (np.arange(points) + 0.5) / points
    total = np.zeros(len(LANGUAGE.table))
    for pattern in range(1, 8):
        hidden = np.array([pattern >> 2 & 1, pattern >> 1 & 1, pattern & 1], bool)
        noisy = np.where(hidden, 3, LANGUAGE.sequences)
        log_p = np.asarray(jax.nn.log_softmax(denoise(jnp.asarray(noisy), jnp.zeros(27))[..., :3]), np.float64)
        nats = -np.take_along_axis(log_p, LANGUAGE.sequences[..., None], -1)[:, hidden, 0].sum(axis=1)
        total += nats * (time ** (hidden.sum() - 1) * (1 - time) ** (~hidden).sum()).mean()
    return total


@pytest.mark.parametrize("minimum", [1e-3, 0.3])
def test_expected_training_loss_is_the_bound_except_for_times_below_the_minimum(minimum):
    """Law 1 for the training loss: for each sequence, under a wrong denoiser, with the randomness of `draws`."""
    wrong = random_denoiser(jax.random.key(4), 3)

    def denoise(noisy, time):
        return wrong(noisy, jnp.zeros_like(time))

    process, repeats = MaskedDiffusion(3, schedules.Linear()), 32
    batch = jnp.tile(jnp.asarray(LANGUAGE.sequences), (64, 1))

    @jax.jit
    def run(root):
        def once(step):
            randomness = draws(root, "train", step, len(batch))
            time = sample_times(randomness.uniform, minimum)
            nats = weighted_cross_entropy(process, denoise, batch, jnp.ones(batch.shape), time, randomness)
            return nats.reshape(64, -1).mean(axis=0)

        return jax.lax.map(once, jnp.arange(repeats))

    nats = np.asarray(run(jax.random.key(9)), np.float64)
    exact = exact_at_times_above(denoise, minimum)
    assert deviation(nats, exact) < 4.5
    # The bias of the mean over [minimum, 1] is below a thousandth at the published minimum.
    bias = exact / LANGUAGE.expected_bound(denoise) - 1
    if minimum == 1e-3:
        assert np.abs(bias).max() < 1e-3
    else:
        assert np.abs(bias).max() > 0.02
