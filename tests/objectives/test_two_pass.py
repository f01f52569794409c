"""Training with two passes: the limits of rate 0 and of a new adapter, and no gradient through the first pass.

The network is a small transformer with dropout, random weights, and an adapter that is random or new (zero).
"""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.categorical import EXCLUDED
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.self_conditioning import randomly_self_conditioned
from diffusion.rng import draws, fold
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.plan import resolve
from tests.small_configs import small_config
from tests.weights import randomized

VOCABULARY, LENGTH, BATCH = 11, 8, 6


def system_of(**overrides):
    fields = dict(model__blocks=2, model__dropout=0.3, data__length=LENGTH, train__batch=BATCH, sample__steps=3)
    config = small_config(**fields | overrides)
    return config, families.system(config, VOCABULARY)


TOKENS = jax.random.randint(jax.random.key(0), (BATCH, LENGTH), 0, VOCABULARY)
NOISE = draws(jax.random.key(5), "test", 0, BATCH)
BASE = system_of()[1]
SYSTEM = system_of(memory__adapter="linear")[1]
PARAMS = randomized(SYSTEM.init)
OLD = {name: part for name, part in PARAMS.items() if name != "adapter"}
NEW = OLD | {"adapter": jax.tree.map(jnp.zeros_like, PARAMS["adapter"])}


@partial(jax.jit, static_argnums=(0, 4))
def slope(denoiser, params, tokens, noise, train):
    """Compute the loss of MDLM and its gradient."""
    batch = {"tokens": tokens, "weights": jnp.ones(tokens.shape)}
    objective = Nelbo(denoiser, BASE.process)
    (total, _), gradient = jax.value_and_grad(objective, has_aux=True)(params, batch, noise, train)
    return total, gradient


TWO, NONE = (
    randomly_self_conditioned(SYSTEM.denoiser, SYSTEM.self_conditioning),
    randomly_self_conditioned(SYSTEM.denoiser, SYSTEM.self_conditioning, 0.0),
)


@pytest.mark.parametrize("train", [True, False], ids=["dropout", "plain"])
def test_training_with_a_new_adapter_starts_at_the_base(train):
    """At rate 1 the loss and the gradient of the base are unchanged, with dropout too; the adapter has a gradient."""
    base, expected = slope(BASE.denoiser, OLD, TOKENS, NOISE, train)
    loss, gradient = slope(TWO, NEW, TOKENS, NOISE, train)
    assert loss == base and np.isfinite(loss)
    assert np.abs(gradient.pop("adapter")["linear"]["kernel"]).max() > 1e-3
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-6


def test_rate_zero_is_the_training_of_the_base():
    """With a random adapter and dropout, and the same keys; the gradient of the adapter is exactly 0."""
    base, expected = slope(BASE.denoiser, OLD, TOKENS, NOISE, True)
    loss, gradient = slope(NONE, PARAMS, TOKENS, NOISE, True)
    assert loss == base
    assert not np.any(gradient.pop("adapter")["linear"]["kernel"])
    chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-6)
    # Evaluation has no coins: all examples are self-conditioned.
    assert abs(slope(NONE, PARAMS, TOKENS, NOISE, False)[0] - slope(BASE.denoiser, OLD, TOKENS, NOISE, False)[0]) > 1e-2


TIME = jnp.linspace(0.4, 1.0, BATCH)
NOISY = BASE.process.corrupt(NOISE.keys, TOKENS, TIME)
KEYS = fold(NOISE.keys, "dropout")


def nats(denoiser, params, keys, previous=None):
    """Cross-entropy of the masked positions of each example."""
    logits = denoiser(params, NOISY, TIME, None, previous, keys=keys)
    log_probs = jax.nn.log_softmax(logits[..., :VOCABULARY])
    clean = jnp.take_along_axis(log_probs, TOKENS[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(NOISY == VOCABULARY, clean, 0), axis=1)


def soft_embedding(params, first_params, cut_table=False):
    """p E with the probabilities p of a first pass, without dropout, with the weights `first_params`."""
    logits = SYSTEM.denoiser(first_params, NOISY, TIME)
    p = jax.nn.softmax(jnp.where((jnp.arange(VOCABULARY + 1) < VOCABULARY)[None, None], logits, EXCLUDED), axis=-1)
    table = params["embedding"][:VOCABULARY]
    table = jax.lax.stop_gradient(table) if cut_table else table
    return jnp.where((NOISY == VOCABULARY)[..., None], p[..., :VOCABULARY] @ table, 0)


def test_the_gradient_is_that_of_an_external_self_conditioning_input():
    """Only the second pass has dropout. The embedding table has a gradient through the input too, as E in W p E."""

    @jax.jit
    def gradients(params):
        def outside(params, cut_table):
            previous = soft_embedding(params, jax.lax.stop_gradient(params), cut_table)
            return nats(SYSTEM.denoiser, params, KEYS, previous).sum()

        def inside(params):
            return nats(TWO, params, KEYS).sum()

        def uncut(params):
            return nats(SYSTEM.denoiser, params, KEYS, soft_embedding(params, params)).sum()

        constant = soft_embedding(params, params)

        def array(params):
            return nats(SYSTEM.denoiser, params, KEYS, constant).sum()

        return [
            jax.value_and_grad(function)(params)
            for function in (inside, partial(outside, cut_table=False), partial(outside, cut_table=True), array, uncut)
        ]

    inside, outside, cut_table, array, uncut = gradients(PARAMS)
    chex.assert_trees_all_close(inside, outside, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(cut_table, array, rtol=1e-5, atol=1e-5)
    for value, _ in (cut_table, array, uncut):
        assert float(value) == pytest.approx(float(inside[0]), rel=1e-6)
    # All gradients but that of the table are those with a constant array. Without the cut they differ.
    chex.assert_trees_all_close(
        {name: part for name, part in inside[1].items() if name != "embedding"},
        {name: part for name, part in array[1].items() if name != "embedding"},
        rtol=1e-5,
        atol=1e-5,
    )
    assert np.abs(inside[1]["embedding"] - array[1]["embedding"]).max() > 1e-3
    assert np.abs(inside[1]["head"]["linear"]["kernel"] - uncut[1]["head"]["linear"]["kernel"]).max() > 1e-3


def test_the_loss_of_an_example_depends_on_its_coin_and_not_on_the_batch():
    """At rate 1/2 it is that of one pass or of two passes, in any order of the batch."""

    @partial(jax.jit, static_argnums=0)
    def run(denoiser, keys, order):
        def pick(array):
            return array[order]

        noisy, tokens, time = pick(NOISY), pick(TOKENS), pick(TIME)
        logits = denoiser(PARAMS, noisy, time, keys=pick(keys))
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]

    forwards, backwards = jnp.arange(BATCH), jnp.arange(BATCH)[::-1]
    half = randomly_self_conditioned(SYSTEM.denoiser, SYSTEM.self_conditioning, 0.5)
    mixed, two_passes, one_pass = (run(denoiser, KEYS, forwards) for denoiser in (half, TWO, SYSTEM.denoiser))
    same = [np.abs(mixed - other).max(axis=1) < 1e-6 for other in (two_passes, one_pass)]
    assert np.array_equal(same[0], ~same[1]) and 0 < same[0].sum() < BATCH, same
    np.testing.assert_allclose(run(half, KEYS, backwards)[::-1], mixed, rtol=1e-5, atol=1e-5)


def test_low_precision_is_finite():
    """Loss and gradient with bfloat16 products, for states with all masks and with none."""
    _, system = system_of(memory__adapter="linear", model__dtype="bfloat16")
    denoiser = randomly_self_conditioned(system.denoiser, system.self_conditioning)

    @jax.jit
    def run(params, hidden):
        def loss(params):
            noisy = jnp.where(hidden[:, None], VOCABULARY, TOKENS)
            logits = denoiser(params, noisy, jnp.ones(BATCH), keys=KEYS)
            log_prob = system.process.log_prob(logits, noisy, TOKENS)
            return -jnp.sum(jnp.where(hidden[:, None], log_prob, 0)), logits

        (total, logits), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return total, logits, gradient

    total, logits, gradient = run(PARAMS, jnp.ones(BATCH, bool))
    assert logits.dtype == jnp.bfloat16 and np.isfinite(total) and total > 0
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((gradient, logits.astype(jnp.float32))))
    assert np.abs(gradient["adapter"]["linear"]["kernel"]).max() > 0
    total, logits, gradient = run(PARAMS, jnp.zeros(BATCH, bool))
    assert total == 0 and np.isfinite(logits.astype(jnp.float32)).all()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_partially_masked_tokens_are_trained_and_sampled_with_self_conditioning():
    """Training changes the adapter, and the sampler has as many evaluations as without self-conditioning."""
    config, system = system_of(memory__adapter="linear", codec__digits=2)
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    params = randomized(system.init)
    batch = {"tokens": TOKENS, "weights": jnp.ones(TOKENS.shape)}
    step = jax.jit(make_step(objective, optimizer))
    state, metrics = step(new_state(params, optimizer), batch, jax.random.key(2))
    state, metrics = step(state, batch, jax.random.key(2))
    total, count = metrics["loss"]
    assert np.isfinite(total) and count == TOKENS.size
    moved = jax.tree.map(lambda after, before: float(np.abs(after - before).max()), state.params, params)
    assert moved["adapter"]["linear"]["kernel"] > 1e-5 and moved["embedder"]["table"] > 1e-5

    prompt = jnp.full((BATCH, LENGTH), VOCABULARY)
    drawn = {}
    for memory in ("reuse", "null"):
        sample = jax.jit(families.sampler(resolve(config, {"sample.memory": memory}, 0), system))
        drawn[memory] = sample(state.params, KEYS, prompt)
        assert (drawn[memory].evaluations == config.sample.steps + 1).all()
        assert (drawn[memory].tokens < VOCABULARY).all() and not drawn[memory].invalid.any()
    assert (drawn["reuse"].tokens != drawn["null"].tokens).any()


def test_the_rate_is_that_of_the_config():
    """At rate 0 training has one pass, also for a network with self-conditioning."""
    config, system = system_of(memory__adapter="linear")
    assert families.objective(config, system).denoiser is not system.denoiser
    assert families.objective(resolve(config, {"memory.rate": 0.0}, 0), system).denoiser is system.denoiser
    assert families.objective(config, BASE).denoiser is BASE.denoiser
