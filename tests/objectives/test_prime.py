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
from diffusion.likelihood.estimators import BoundSteps, bound_continuous, bound_grouped, bound_marginal, joint_ce
from diffusion.objectives.elbo import Nelbo, masked_nll
from diffusion.objectives.reveal import RevealNelbo
from diffusion.oracles.subtokens import expected_nats, state_sets
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import Draws, draws, example_keys
from diffusion.schedules import masking as schedules
from tests.languages import constant, denoiser_of

SCHEDULE = schedules.LogLinear()
CODEC = SubtokenCodec(5, 2)
M = CODEC.mask_id
PRIME = PartialMaskedDiffusion(CODEC, SCHEDULE)
EVERY = np.arange(5)[:, None]  # all sequences of one token


# Weights of states.


@pytest.mark.parametrize("positions", [1, 2, 3, 4])
def test_weights_of_masked_sets(positions):
    sets, weights = state_sets(positions)
    sizes = sets.sum(axis=1)
    known = {2: {1: 1 / 2, 2: 1 / 2}, 3: {1: 1 / 3, 2: 1 / 6, 3: 1 / 3}}.get(positions, {})
    for size, weight in known.items():
        np.testing.assert_allclose(weights[sizes == size], weight, rtol=1e-12)
    assert len(np.unique(sets, axis=0)) == len(sets) == 2**positions - 1
    assert np.sum(sizes * weights) == pytest.approx(positions, rel=1e-12)
    # The weights are integrals over time.
    time = (np.arange(20_000) + 0.5) / 20_000
    for size in range(1, positions + 1):
        integral = np.mean(time ** (size - 1) * (1 - time) ** (positions - size))
        assert weights[sizes == size] == pytest.approx(integral, rel=1e-6)


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
    if carry_over and target == "marginal":
        np.testing.assert_allclose(nats, -jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)), atol=2e-6)


# One sub-token per token is MDLM.

SIZE, LENGTH = 64, 6
TOKENS = jax.random.randint(jax.random.key(0), (SIZE, LENGTH), 0, 5)
WEIGHTS = jnp.ones(TOKENS.shape).at[:, -1].set(0)
NOISE, NOISE_32 = draws(jax.random.key(1), "test", 0, SIZE), draws(jax.random.key(9), "test", 0, 32)
WHOLE, ONE = MaskedDiffusion(5, SCHEDULE), PartialMaskedDiffusion(SubtokenCodec(5, 1), SCHEDULE)


def scaled(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Logits of six classes that depend on the whole state and the time, times the parameter."""
    context = jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True) + time[:, None]
    context = context[:, :: noisy.shape[1] // LENGTH]
    return params * jnp.sin(context[..., None] + 2.0 * jnp.arange(6.0)[None, None])


logits_of = jax.jit(scaled)
score = jax.jit(masked_nll, static_argnums=(0, 5))


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


@pytest.mark.parametrize(
    "estimate",
    [bound_continuous, bound_marginal, joint_ce, BoundSteps(3)],
    ids=["bound_continuous", "bound_marginal", "joint_ce", "bound_steps_3"],
)
def test_the_likelihood_for_one_subtoken_per_token_is_that_of_mdlm(estimate):
    """For every sequence, with the same randomness."""
    run = jax.jit(lambda process: estimate(partial(scaled, 1.0), process, TOKENS, WEIGHTS, NOISE), static_argnums=0)
    np.testing.assert_allclose(run(ONE), run(WHOLE), rtol=1e-6)


def test_unmasked_tokens_of_one_subtoken_do_not_count():
    hidden = jnp.zeros((SIZE, LENGTH), bool).at[:, 2].set(True)
    noisy = jnp.where(hidden, 5, TOKENS)
    logits = logits_of(1.0, noisy, jnp.zeros(SIZE))
    expected = -jax.nn.log_softmax(logits[:, 2, :5])[jnp.arange(SIZE), TOKENS[:, 2]]
    for process in (ONE, replace(ONE, carry_over=False), WHOLE):
        for target in ("marginal", "joint"):
            nats = score(process, logits, noisy, TOKENS, jnp.ones(TOKENS.shape), target)
            np.testing.assert_allclose(nats, expected, atol=1e-6)


# Sub-tokens masked together.


@pytest.mark.parametrize("carry_over", [True, False], ids=["filter", "free"])
def test_subtokens_masked_together_have_the_loss_of_whole_tokens(carry_over):
    """With the same logits and masked tokens the loss is that of MDLM, with and without the filter."""
    process = replace(PRIME, carry_over=carry_over, chunk_point=0.0)
    time = jnp.full(SIZE, 0.5)
    noisy = process.corrupt(NOISE.keys, TOKENS, time)
    hidden = process.split(noisy)[..., 0] == M
    logits = logits_of(1.0, noisy, time)
    together = jnp.ones(SIZE, bool)
    prime = score(process, logits, noisy, process.encode(TOKENS), WEIGHTS, "marginal", together)
    masked = jnp.where(hidden, 5, TOKENS)
    mdlm = score(WHOLE, logits, masked, TOKENS, WEIGHTS, "marginal")
    np.testing.assert_allclose(prime, mdlm, rtol=1e-5, atol=1e-6)
    # The joint loss of masked tokens is the same.
    joint = score(process, logits, noisy, process.encode(TOKENS), WEIGHTS * hidden, "joint")
    np.testing.assert_allclose(joint, mdlm, rtol=1e-5, atol=1e-6)


def test_the_objective_at_chunk_point_zero_is_the_bound_of_whole_tokens():
    """Its mean is `bound_grouped`, and not the sum of marginals."""
    exact = np.asarray(jax.nn.logsumexp(jnp.arange(5.0)) - np.arange(5.0))
    batch = {"tokens": jnp.tile(jnp.asarray(EVERY), (400, 1)), "weights": jnp.ones((2000, 1))}
    noise = draws(jax.random.key(3), "test", 0, 2000)
    denoiser, together = denoiser_of(constant(np.arange(5))), replace(PRIME, chunk_point=0.0)
    for target in ("marginal", "joint"):
        # The single token is masked in every draw, so that draws have no noise.
        total, metrics = jax.jit(partial(RevealNelbo(denoiser, together, target), None))(batch, noise)
        assert float(total / metrics["loss"][1]) == pytest.approx(exact.mean(), rel=1e-5)


@pytest.mark.parametrize("carry_over", [True, False], ids=["filter", "free"])
def test_the_grouped_bound_counts_masked_tokens_only(carry_over):
    """For equal tokens and a context-free network every draw is L times -log softmax, with and without the filter."""
    tokens = jnp.broadcast_to(jnp.array([4, 1])[jnp.arange(32) % 2, None], (32, 3))
    process = replace(PRIME, carry_over=carry_over)
    slope = constant(np.arange(5))
    nats = jax.jit(lambda: bound_grouped(slope, process, tokens, jnp.ones(tokens.shape), NOISE_32))()
    np.testing.assert_allclose(nats, np.tile([3 * 0.451914, 3 * 3.451914], 16), rtol=2e-6)


@pytest.mark.parametrize("carry_over", [True, False], ids=["filter", "free"])
def test_joint_and_marginal_loss_agree_for_at_most_one_masked_subtoken_per_token(carry_over):
    """This holds with the filter; without it the joint loss is larger."""
    process = replace(PRIME, carry_over=carry_over)
    clean = process.encode(TOKENS)
    place = jax.random.randint(jax.random.key(4), (SIZE, LENGTH, 1), 0, 3)  # 2: none
    noisy = jnp.where((place == jnp.arange(2)[None, None]).reshape(clean.shape), M, clean)
    assert {0, 1, 2} == set(np.ravel(place).tolist())
    logits = logits_of(1.0, noisy, jnp.zeros(SIZE))
    joint, marginal = (
        np.asarray(score(process, logits, noisy, clean, WEIGHTS, target)) for target in ("joint", "marginal")
    )
    if carry_over:
        np.testing.assert_allclose(joint, marginal, rtol=1e-5, atol=1e-6)
    else:
        assert (joint > marginal + 1e-3).all()
    both = jnp.full(clean.shape, M)
    values = [score(process, logits, both, clean, WEIGHTS, target) for target in ("joint", "marginal")]
    assert np.abs(values[0] - values[1]).min() > 1e-3


def test_the_loss_of_mixed_noise_depends_on_the_time_of_each_example():
    """Above the chunk point it is that of whole tokens, else that of sub-tokens; weight 0 counts in neither."""
    process = replace(PRIME, chunk_point=0.5)
    noise = Draws(example_keys(jax.random.key(13), jnp.arange(2)), jnp.array([0.7, 0.5]))
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
    noisy = process.split(process.encode(TOKENS)).at[:, 0].set(M).at[:, 1, 0].set(M).reshape(SIZE, -1)
    logits = scaled(20.0, noisy, time)[..., :5].astype(dtype)

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
