"""Law 1 for block diffusion: its bound is the entropy under the exact denoiser, between the AR and the MDLM limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.likelihood.blocks import estimator
from diffusion.likelihood.estimators import bound_continuous
from diffusion.objectives.blocks import clipped_block_loss, reveal_block_bound
from diffusion.oracles.blocks import by_blocks
from diffusion.oracles.check import check_estimator, estimate_nats
from diffusion.oracles.enumerable import random_language
from diffusion.processes.blocks import BlockDiffusion
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules.masking import LogLinear
from tests.languages import lookup

LANGUAGE = random_language(0, vocabulary=3, length=4)
KEY = jax.random.key(7)


def process(block):
    return BlockDiffusion(LANGUAGE.vocabulary, LogLinear(), block)


def test_the_bound_is_the_entropy_and_holds_for_wrong_denoisers():
    checks = check_estimator(reveal_block_bound, LANGUAGE, process(2), draws_each=1024, tables=2)
    assert all(check.passed for check in checks)
    assert abs(checks[0].value - LANGUAGE.entropy()) < 4.5 * checks[0].error + 1e-4


def test_the_limits_of_blocks_of_one_token_and_of_one_block():
    """The first is autoregressive, exact in every draw; the second is MDLM, draw by draw."""
    tokens, weights = jnp.asarray(LANGUAGE.sequences), jnp.ones(LANGUAGE.sequences.shape)

    @jax.jit
    def run(noise):
        kinds = (process(1), process(4))
        blocks = [reveal_block_bound(by_blocks(LANGUAGE.denoise, p), p, tokens, weights, noise) for p in kinds]
        return blocks, bound_continuous(LANGUAGE.denoise, MaskedDiffusion(3, LogLinear()), tokens, weights, noise)

    (autoregressive, whole), mdlm = run(draws(KEY, "check", 0, len(tokens)))
    np.testing.assert_allclose(autoregressive, -LANGUAGE.log_prob(LANGUAGE.sequences), atol=1e-4)
    np.testing.assert_allclose(whole, mdlm, atol=1e-5)


def test_the_worked_language():
    """Three tokens of four symbols in one block of 3: 3.422 nats."""
    language, noise = random_language(0, vocabulary=4, length=3), BlockDiffusion(4, LogLinear(), 3)
    nats = estimate_nats(reveal_block_bound, by_blocks(language.denoise, noise), noise, language.sequences, 4096, KEY)
    means = nats @ language.table
    assert means.mean() == pytest.approx(3.422, abs=0.01)


def test_clipped_levels_are_the_bound_only_when_they_are_all_levels():
    denoise, noise = by_blocks(lookup(4, 4, (4, 4), 0.7, timed=False), process(2)), process(2)

    def estimate(estimate, draws_each):
        nats = estimate_nats(estimate, denoise, noise, LANGUAGE.sequences, draws_each, KEY)
        return nats.mean(axis=0), nats.std(axis=0, ddof=1) / np.sqrt(len(nats))

    exact, _ = estimate(reveal_block_bound, 2048)
    for low, smallest, largest in ((1e-3, 0, 4.5), (0.9, 10, np.inf)):
        mean, error = estimate(lambda *inputs, low=low: clipped_block_loss(*inputs, low, 1.0), 8192)
        assert smallest <= np.max(np.abs(mean - exact) / np.hypot(error, 0.01)) < largest


def test_an_unknown_estimator_and_a_length_of_no_whole_blocks():
    with pytest.raises(ValueError, match=r"unknown name 'bound_continuous' .*known: bound_blocks"):
        estimator("bound_continuous")
    with pytest.raises(ValueError, match=r"process\.block: 3 must divide the length 4"):
        process(3).by_block(jnp.zeros((2, 4)))
