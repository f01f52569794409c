"""Evaluation of estimators over a data set, and the summary of their values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.likelihood.estimators import bound_continuous, nll_autoregressive
from diffusion.likelihood.summary import evaluate_likelihood, make_evaluator, summarize
from diffusion.metrics.statistics import ratio
from diffusion.oracles.markov import random_chain
from diffusion.processes.masking import MaskedDiffusion
from diffusion.schedules import masking as schedules
from tests.checks import refused
from tests.languages import denoiser_of

CHAIN = random_chain(2, vocabulary=4, length=8)
PROCESS = MaskedDiffusion(4, schedules.LogLinear())


def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    """The exact posterior of the chain times a parameter, to test that parameters are passed."""
    assert keys is None
    return params["scale"] * CHAIN.denoise(noisy, time)


PARAMS = {"scale": jnp.ones(())}
EVALUATOR = make_evaluator(bound_continuous, denoiser, PROCESS, draws_per_example=8)
EXACT = make_evaluator(nll_autoregressive, denoiser_of(CHAIN.next_token), PROCESS)
TOKENS = np.asarray(CHAIN.sample(jax.random.key(0), 240)).reshape(60, 4, 8)


def evaluate(evaluator, count=60, weights=np.ones((4, 8), np.float32)):  # noqa: B008
    batches = ({"tokens": tokens, "weights": weights} for tokens in TOKENS[:count])
    return evaluate_likelihood(evaluator, PARAMS, batches, jax.random.key(1))


def test_the_mean_of_the_bound_is_the_entropy():
    scores = evaluate(EVALUATOR)
    assert scores.nats.dtype == np.float64 and scores.nats.shape == (240,) and np.all(scores.tokens == 8)
    mean, error = ratio(scores.nats, scores.tokens)
    assert abs(mean - CHAIN.entropy() / 8) < 3.5 * error
    assert error < 0.05


def test_draws_of_an_example_are_evenly_spaced():
    """With as many draws as positions every number of masks occurs once, so that constant logits have no noise."""
    uniform = make_evaluator(
        bound_continuous, lambda _, noisy, *rest, keys=None: jnp.zeros((*noisy.shape, 5)), PROCESS, 8
    )
    single = make_evaluator(bound_continuous, denoiser, PROCESS, 1)
    batch = {"tokens": TOKENS[0], "weights": np.ones((4, 8), np.float32)}
    np.testing.assert_allclose(uniform(PARAMS, batch, jax.random.key(0), 0)[0], 8 * np.log(4), rtol=1e-5)
    one, eight = (
        np.stack([evaluator(PARAMS, batch, jax.random.key(3), step)[0] for step in range(64)])
        for evaluator in (single, EVALUATOR)
    )
    assert eight.var(axis=0).mean() < one.var(axis=0).mean() / 8


def test_the_exact_likelihood_of_the_causal_network_and_padding():
    np.testing.assert_allclose(evaluate(EXACT, 2).nats, -CHAIN.log_prob(TOKENS[:2].reshape(-1, 8)), rtol=1e-5)
    weights = np.ones((4, 8), np.float32)
    weights[1, 5:], weights[3] = 0, 0
    np.testing.assert_array_equal(evaluate(EXACT, 1, weights).tokens, [8, 5, 8])
    for count in (0, 1):
        with refused("no sequence to score"):
            evaluate(EXACT, count, 0 * weights)


def test_summary_of_a_bound():
    nats, tokens = np.array([8, 16]) * np.log(2), np.array([4, 4])
    summary = summarize("bound_continuous", nats, tokens, characters=16, bytes=24)
    expected = {
        "nats_per_token": 3 * np.log(2),
        "bits_per_token": 3,
        "bits_per_character": 1.5,
        "bits_per_byte": 1,
        "perplexity": 8,
        # Two sequences have 2 and 4 bits per token, so that the error of the mean is sqrt(2) / sqrt(2) = 1 bit.
        "bits_per_token_sem": 1,
        "perplexity_sem": 8 * np.log(2),
        "sequences": 2,
        "tokens": 8,
    }
    for key, value in expected.items():
        assert summary[f"bound_continuous/{key}"] == pytest.approx(value)
    single = summarize("bound_continuous", np.array([1.0]), np.array([1]))
    assert "bound_continuous/bits_per_byte" not in single
    assert np.isnan(single["bound_continuous/nats_per_token_sem"])


@pytest.mark.parametrize("name", ["masked_ce", "joint_ce", "loss", "unbound_x"])
def test_only_likelihoods_have_a_perplexity(name):
    nats, tokens = np.array([1.0, 2.0]), np.array([1, 1])
    with refused("no perplexity"):
        summarize(name, nats, tokens)
    summary = summarize(name, nats, tokens, characters=2, perplexity=False)
    assert summary[f"{name}/nats_per_token"] == 1.5
    assert not any("perplexity" in key or "bits" in key for key in summary)


def test_standard_error_of_a_ratio():
    random = np.random.default_rng(0)
    counts = random.integers(1, 20, size=(2000, 50)).astype(float)
    totals = counts * random.normal(2.0, 1.0, size=counts.shape)
    values, errors = zip(*map(ratio, totals, counts), strict=True)
    assert np.mean(values) == pytest.approx(2, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)


def test_fewer_than_one_draw_is_rejected():
    with refused(r"evaluate\.draws"):
        make_evaluator(bound_continuous, denoiser, PROCESS, 0)
