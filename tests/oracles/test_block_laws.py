"""Law 1 for block diffusion: its bound is the entropy under the exact denoiser, between the AR and the MDLM limits."""

import subprocess
import sys

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
from diffusion.oracles.tables import random_denoiser
from diffusion.processes.blocks import BlockDiffusion
from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules.masking import LogLinear

LANGUAGE = random_language(0, vocabulary=3, length=4)
KEY = jax.random.key(7)


def process(block):
    return BlockDiffusion(LANGUAGE.vocabulary, LogLinear(), block)


def estimates(estimate, block, denoise=LANGUAGE.denoise, draws_each=2048):
    noise = process(block)
    return estimate_nats(estimate, by_blocks(denoise, noise), noise, LANGUAGE.sequences, draws_each, KEY)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_the_bound_is_the_entropy_and_holds_for_wrong_denoisers(block):
    checks = check_estimator(reveal_block_bound, LANGUAGE, process(block), draws_each=2048, tables=2)
    assert all(check.passed for check in checks)
    assert abs(checks[0].value - LANGUAGE.entropy()) < 4.5 * checks[0].error + 1e-4
    assert (checks[0].error < 1e-6) == (block == 1)


def test_blocks_of_one_token_are_autoregressive():
    """The value of every sequence is exact, whatever the draw."""
    nats = estimates(reveal_block_bound, 1, draws_each=64)
    np.testing.assert_allclose(nats, np.tile(-LANGUAGE.log_prob(LANGUAGE.sequences), (len(nats), 1)), atol=1e-4)


def test_one_block_is_the_bound_of_mdlm_draw_by_draw():
    tokens, weights = jnp.asarray(LANGUAGE.sequences), jnp.ones(LANGUAGE.sequences.shape)
    noise = draws(KEY, "check", 0, len(tokens))
    blocks = reveal_block_bound(by_blocks(LANGUAGE.denoise, process(4)), process(4), tokens, weights, noise)
    mdlm = bound_continuous(LANGUAGE.denoise, MaskedDiffusion(3, LogLinear()), tokens, weights, noise)
    np.testing.assert_allclose(blocks, mdlm, atol=1e-5)


def test_the_worked_language():
    """Three tokens of four symbols in one block of 3: 3.422 nats."""
    language = random_language(0, vocabulary=4, length=3)
    noise = BlockDiffusion(4, LogLinear(), 3)
    check = check_estimator(reveal_block_bound, language, noise, draws_each=4096, tables=0)[0]
    assert check.limit == pytest.approx(3.422, abs=1e-3) and abs(check.value - check.limit) < 3.5 * check.error
    assert check.error < 0.005


def test_clipped_levels_are_the_bound_only_when_they_are_all_levels():
    wrong = random_denoiser(jax.random.key(3), 3)
    exact = estimates(reveal_block_bound, 2, wrong).mean(axis=0)

    def loss(low, high):
        nats = estimates(lambda *inputs: clipped_block_loss(*inputs, low, high), 2, wrong, draws_each=8192)
        return nats.mean(axis=0), nats.std(axis=0, ddof=1) / np.sqrt(len(nats))

    mean, error = loss(1e-3, 1.0)
    assert np.max(np.abs(mean - exact) / np.hypot(error, 0.01)) < 4.5
    mean, error = loss(0.9, 1.0)
    assert np.max(np.abs(mean - exact) / error) > 10


def test_an_unknown_estimator_and_a_length_of_no_whole_blocks():
    with pytest.raises(ValueError, match=r"unknown name 'bound_continuous' .*known: bound_blocks"):
        estimator("bound_continuous")
    with pytest.raises(ValueError, match=r"process\.block: 3 must divide the length 4"):
        process(3).by_block(jnp.zeros((2, 4)))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--estimator=bound_blocks", "--draws=512"], 0, "a bound, tight"),
        (["--estimator=tests.oracles.test_block_laws:halved", "--draws=512"], 1, "not a bound"),
        (["--estimator=bound_continuous"], 2, "known: bound_blocks"),
    ],
)
def test_verdicts(arguments, status, message):
    command = [sys.executable, "-m", "diffusion.oracles", "--process=blocks", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    assert message in result.stdout + result.stderr


def halved(*inputs):
    """Half of the bound, which is not one."""
    return reveal_block_bound(*inputs) / 2
