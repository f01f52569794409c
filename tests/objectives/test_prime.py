"""The losses of MDM-Prime: worked examples, limits that are MDLM, sub-tokens masked together, and gradients.

The example has five tokens of two base-3 sub-tokens; a context-free network has the same logits in every state.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood.estimators import BoundSteps, bound_continuous, bound_marginal, joint_ce
from diffusion.objectives.elbo import Nelbo, masked_nll
from diffusion.objectives.reveal import RevealNelbo
from diffusion.oracles.subtokens import expected_nats, state_sets
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws, draws
from diffusion.schedules import masking as schedules
from tests.languages import constant, denoiser_of
from tests.weights import keys_of

SCHEDULE = schedules.LogLinear()
CODEC = SubtokenCodec(5, 2)
M = CODEC.mask_id
PRIME = PartialMaskedDiffusion(CODEC, SCHEDULE)
EVERY = np.arange(5)[:, None]  # all sequences of one token


# Weights of states.


@pytest.mark.parametrize(
    "known", [[1], [1 / 2, 1 / 2], [1 / 3, 1 / 6, 1 / 3], [1 / 4, 1 / 12, 1 / 12, 1 / 4]], ids=lambda row: len(row)
)
def test_weights_of_masked_sets(known):
    """By size they are int_0^1 t^{n - 1} (1 - t)^{N - n} dt."""
    sets, weights = state_sets(len(known))
    assert len(np.unique(sets, axis=0)) == len(sets) == 2 ** len(known) - 1
    np.testing.assert_allclose(weights, np.array(known)[sets.sum(axis=1) - 1], rtol=1e-12)


# Worked examples for a context-free network.

CONTEXT_FREE = [
    (np.arange(5), True, "marginal", [4.451914, 3.451914, 2.451914, 1.451914, 0.451914]),
    (np.arange(5), True, "joint", [4.954054, 3.954054, 1.429760, 1.406882, 0.406882]),
    (np.zeros(5), True, "marginal", [1.609438] * 5),
    (np.zeros(5), True, "joint", [1.700599, 1.700599, 1.354025, 1.497866, 1.497866]),
    (np.arange(5), False, "marginal", [3.447635, 2.447635, 4.496223, 1.541980, 0.541980]),
]


@pytest.mark.parametrize(("logits", "carry_over", "target", "expected"), CONTEXT_FREE)
def test_losses_of_a_context_free_network(logits, carry_over, target, expected):
    nats = expected_nats(replace(PRIME, carry_over=carry_over), constant(logits), EVERY, target)
    np.testing.assert_allclose(nats, expected, atol=2e-6)


@pytest.mark.parametrize("token", [0, 12345, 50256])
def test_the_bound_of_an_untrained_network_for_the_vocabulary_of_gpt2(token):
    """With four sub-tokens per token it is ln 50257 = 10.824905 for every token."""
    process = PartialMaskedDiffusion(SubtokenCodec(50257, 4), SCHEDULE)
    uniform = expected_nats(process, lambda noisy, time: jnp.zeros((1, 1, 50257)), np.array([[token]]), "marginal")
    np.testing.assert_allclose(uniform, 10.824905, atol=1e-5)


# One sub-token per token is MDLM.

SIZE, LENGTH = 64, 6
TOKENS = np.random.default_rng(0).integers(0, 5, (SIZE, LENGTH))
WEIGHTS = jnp.ones(TOKENS.shape).at[:, -1].set(0)
NOISE = draws(jax.random.key(1), "test", 0, SIZE)
WHOLE, ONE = MaskedDiffusion(5, SCHEDULE), PartialMaskedDiffusion(SubtokenCodec(5, 1), SCHEDULE)


def scaled(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Logits of six classes that depend on the whole state and the time, times the parameter."""
    context = jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True) + time[:, None]
    context = context[:, :: noisy.shape[1] // LENGTH]
    return params * jnp.sin(context[..., None] + 2.0 * jnp.arange(6.0)[None, None])


@pytest.mark.parametrize("target", ["marginal", "joint"])
@pytest.mark.parametrize("kind", [partial(Nelbo, minimum_time=1e-3), RevealNelbo], ids=["nelbo", "reveal"])
def test_one_subtoken_per_token_is_mdlm(kind, target):
    """Total, gradient and number of tokens are equal."""
    batch = {"tokens": TOKENS, "weights": WEIGHTS}

    @partial(jax.jit, static_argnums=0)
    def run(process):
        return jax.value_and_grad(kind(scaled, process, target=target), has_aux=True)(1.0, batch, NOISE)

    (ours, ours_metrics), ours_slope = run(ONE)
    (theirs, theirs_metrics), theirs_slope = run(WHOLE)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    assert float(ours_slope) == pytest.approx(float(theirs_slope), rel=1e-5)
    assert ours_metrics["loss"][1] == theirs_metrics["loss"][1] == SIZE * (LENGTH - 1)


def test_the_likelihood_for_one_subtoken_per_token_is_that_of_mdlm():
    """For every sequence, with the same randomness."""

    @partial(jax.jit, static_argnums=0)
    def run(process):
        estimates = (bound_continuous, bound_marginal, joint_ce, BoundSteps(3))
        return [estimate(partial(scaled, 1.0), process, TOKENS, WEIGHTS, NOISE) for estimate in estimates]

    np.testing.assert_allclose(run(ONE), run(WHOLE), rtol=1e-6)


# Sub-tokens masked together.


def test_the_objective_at_chunk_point_zero_is_the_bound_of_whole_tokens():
    """Its mean is `bound_grouped`, and not the sum of marginals."""
    batch, noise = {"tokens": EVERY, "weights": jnp.ones((5, 1))}, draws(jax.random.key(3), "test", 0, 5)
    denoiser, together = denoiser_of(constant(np.arange(5))), replace(PRIME, chunk_point=0.0)
    for target in ("marginal", "joint"):
        # The single token is masked in every draw, so that draws have no noise.
        total, _ = jax.jit(partial(RevealNelbo(denoiser, together, target), None))(batch, noise)
        assert float(total) == pytest.approx(np.sum(CONTEXT_FREE[0][3]), rel=1e-5)


def test_the_loss_of_mixed_noise_depends_on_the_time_of_each_example():
    """Above the chunk point it is that of whole tokens, else that of sub-tokens; weight 0 counts in neither."""
    process = replace(PRIME, chunk_point=0.5)
    noise = Draws(keys_of(2, seed=13), jnp.array([0.7, 0.5]))
    objective = Nelbo(scaled, process, 0.0)
    tokens, weights = TOKENS[:2], WEIGHTS[:2]

    @jax.jit
    def run(noise):
        totals = [objective(1.0, {"tokens": tokens, "weights": weights.at[other].set(0)}, noise)[0] for other in (1, 0)]
        noisy = process.corrupt(noise.keys, tokens, noise.uniform)
        logits, clean = scaled(1.0, noisy, noise.uniform), process.encode(tokens)
        whole = -process.token_log_prob(logits, noisy, clean) * weights
        part = -process.log_prob(logits, noisy, clean) * (noisy == M) * jnp.repeat(weights, 2, axis=1)
        return totals, whole.sum(axis=1), part.sum(axis=1)

    totals, whole, part = run(noise)
    assert float(totals[0]) == pytest.approx(float(whole[0] / 0.7), rel=1e-5)
    assert float(totals[1]) == pytest.approx(float(part[1] / 0.5), rel=1e-5)
    assert (jnp.abs(part - whole) > 1e-2).all()


# Gradients of the losses.


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("target", ["marginal", "joint"])
def test_gradients_at_the_smallest_time_are_finite_and_zero_for_unmasked_tokens(target, dtype):
    """The weight is 1000; with the filter, unmasked tokens and excluded tokens have no gradient."""
    process, time = PRIME, jnp.full(SIZE, 1e-3)
    noisy = np.array(process.encode(TOKENS)).reshape(SIZE, LENGTH, 2)
    noisy[:, 0], noisy[:, 1, 0] = M, M
    noisy = noisy.reshape(SIZE, -1)
    logits = jax.jit(scaled)(20.0, noisy, time)[..., :5].astype(dtype)

    def loss(logits):
        nats = masked_nll(process, logits, noisy, process.encode(TOKENS), jnp.ones(TOKENS.shape), target)
        return jnp.sum(schedules.rate(SCHEDULE, time) * nats)

    gradient = jax.jit(jax.grad(loss))(logits)
    assert gradient.dtype == dtype
    gradient = np.asarray(gradient.astype(jnp.float32))
    assert np.isfinite(gradient).all() and np.abs(gradient[:, 0]).max() > 100
    assert not gradient[:, 2:].any()
    allowed = np.asarray(process.filtered(logits, noisy)) > -1e29
    assert not gradient[~allowed].any() and not allowed[:, 1].all()
    if dtype == jnp.float32:
        np.testing.assert_allclose(gradient.sum(axis=-1), 0, atol=2e-3)
