"""Losses of an untrained network, whose head is zero, so that it is uniform over the tokens that the filter allows."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood.estimators import bound_marginal
from diffusion.nets.dit import DiT
from diffusion.nets.subtoken_embedding import SubtokenEmbedding
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.reveal import RevealNelbo
from diffusion.oracles.subtokens import expected_nats
from diffusion.oracles.tables import uniform_denoiser
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import draws
from diffusion.schedules import masking as schedules
from tests.languages import denoiser_of

SCHEDULE = schedules.LogLinear()
CODEC = SubtokenCodec(5, 2)
PRIME = PartialMaskedDiffusion(CODEC, SCHEDULE)


@pytest.fixture(scope="module")
def fresh():
    """A transformer with its initial weights."""
    net = DiT(5, hidden=16, blocks=1, heads=2, cond_dim=8, embedder=SubtokenEmbedding(CODEC.base, CODEC.digits, 16))
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    return lambda noisy, time: net.apply(params, noisy, schedules.sigma(SCHEDULE, time))


def test_the_bound_of_an_untrained_network_is_log_c_nats_per_token(fresh):
    tokens = np.array(list(product(range(5), repeat=2)))
    bound = expected_nats(PRIME, fresh, tokens, "marginal")
    np.testing.assert_allclose(bound, 2 * np.log(5), rtol=1e-6)
    joint = expected_nats(PRIME, fresh, tokens, "joint")
    assert joint.mean() / 2 == pytest.approx(np.mean([1.700599, 1.700599, 1.354025, 1.497866, 1.497866]), abs=2e-6)
    assert joint.mean() < 2 * np.log(5)


@pytest.mark.parametrize("token", [0, 12345, 50256])
def test_the_bound_of_an_untrained_network_for_the_vocabulary_of_gpt2(token):
    """With four sub-tokens per token it is ln 50257 = 10.824905 for every token."""
    process = PartialMaskedDiffusion(SubtokenCodec(50257, 4), SCHEDULE)
    uniform = expected_nats(process, lambda noisy, time: jnp.zeros((1, 1, 50257)), np.array([[token]]), "marginal")
    np.testing.assert_allclose(uniform, 10.824905, atol=1e-5)


def test_training_losses_of_an_untrained_network(fresh):
    """Their mean is the bound, in nats per token (not per sub-token); the joint loss is lower."""
    size = 4096
    tokens = jax.random.randint(jax.random.key(6), (size, 2), 0, 5)
    batch, noise = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}, draws(jax.random.key(7), "test", 0, size)
    denoiser = denoiser_of(fresh)
    objectives = [RevealNelbo(denoiser, PRIME), RevealNelbo(denoiser, PRIME, "joint"), Nelbo(denoiser, PRIME)]
    totals = jax.jit(lambda: [objective(None, batch, noise)[1]["loss"] for objective in objectives])()
    assert [count for _, count in totals] == [2 * size] * 3
    marginal, joint, textbook = (float(total / count) for total, count in totals)
    assert marginal == pytest.approx(np.log(5), abs=0.01)
    assert joint == pytest.approx(1.550191, abs=0.01)
    assert textbook == pytest.approx(np.log(5), abs=0.1)


def test_every_draw_is_log_c_if_every_code_is_a_token():
    """With 9 = 3^2 tokens every sub-token's marginal is 1/3 in every state, so that draws have no noise."""
    process = PartialMaskedDiffusion(SubtokenCodec(9, 2), SCHEDULE)
    tokens = jax.random.randint(jax.random.key(8), (32, 2), 0, 9)
    noise = draws(jax.random.key(9), "test", 0, 32)
    nats = jax.jit(lambda: bound_marginal(uniform_denoiser(9, 2), process, tokens, jnp.ones((32, 2)), noise))()
    np.testing.assert_allclose(nats, 2 * np.log(9), rtol=1e-6)
