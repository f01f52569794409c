"""Star-shaped and guided sampling of an exact language with an error oracle."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles.enumerable import Enumerable
from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked import policies
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Window, grid
from diffusion.sampling.masked.policies import Policy, StepInputs, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear, LogLinear, Loop
from tests.languages import denoiser_of
from tests.weights import keys_of

LOOP = Window(0.05, 0.55)


def row_of(rows, index=-1):
    return jax.tree.map(lambda column: column[index], rows)


VOCABULARY, LENGTH = 4, 6


def tied_pairs():
    """Return the uniform language of three pairs of equal tokens, in which parallel draws break pairs."""
    table = np.zeros((VOCABULARY,) * LENGTH)
    for pairs in itertools.product(range(VOCABULARY), repeat=LENGTH // 2):
        table[tuple(np.repeat(pairs, 2))] = 1
    return Enumerable(table.ravel() / table.sum(), VOCABULARY, LENGTH)


LANGUAGE = tied_pairs()


denoiser = denoiser_of(LANGUAGE.denoise)


def oracle(params, tokens, cond):
    """Return the error logits of an oracle that marks both tokens of every unequal pair."""
    pairs = tokens.reshape(len(tokens), -1, 2)
    broken = pairs[..., 0] != pairs[..., 1]
    return jnp.where(jnp.repeat(broken, 2, axis=1), 20.0, -20.0)


SAMPLERS = {
    "ancestral": (Policy(ancestral_step), None),
    "star": (Policy(policies.guided_step(math.inf)), None),
    "gstar": (Policy(policies.guided_step(1.0)), oracle),
}


def sampled(name, rows, size=4096, seed=0, final="draw", prompt=None):
    policy, errors = SAMPLERS[name]
    process = MaskedDiffusion(VOCABULARY, LogLinear())
    sampler = MaskedSampler(denoiser, process, policy, Draw(VOCABULARY), final, errors=errors)
    prompt = jnp.full((size, LENGTH), VOCABULARY) if prompt is None else prompt
    return jax.jit(sampler)(None, keys_of(size, seed), prompt, rows)


def loop(steps):
    return grid(Loop(), steps, LENGTH, process=LogLinear(), window=LOOP)


def broken(tokens):
    """Return the fraction of pairs with unequal tokens."""
    pairs = np.asarray(tokens).reshape(len(tokens), -1, 2)
    return (pairs[..., 0] != pairs[..., 1]).mean()


def test_error_oracle_repairs_broken_pairs():
    """At equal evaluations of the denoiser it has fewer broken pairs than unguided revision and MDLM."""
    steps = 12
    plain = sampled("ancestral", grid(LogLinear(), steps, LENGTH)).tokens
    unguided, guided = (sampled(name, loop(steps)).tokens for name in ("star", "gstar"))
    assert broken(guided) < 0.5 * broken(unguided) and broken(guided) < 0.8 * broken(plain)
    assert LANGUAGE.total_variation(guided) < LANGUAGE.total_variation(plain)


def test_errors_never_rise_under_the_oracle():
    """In expectation, for a guided step whose level covers all errors; a random selection is worse."""
    size, row = 4096, row_of(grid(Linear(), 2, LENGTH, end=0.5))
    tokens = jax.random.randint(jax.random.key(3), (size, LENGTH), 0, VOCABULARY)
    few = jnp.repeat(jnp.arange(LENGTH // 2) > 1, 2)[None]
    tokens = jnp.where(few, jnp.repeat(tokens[:, ::2], 2, axis=1), tokens)
    process, counts = MaskedDiffusion(VOCABULARY, LogLinear()), {}
    for name in ("gstar", "star"):
        policy, _ = SAMPLERS[name]
        none, zero = jnp.zeros(tokens.shape, bool), jnp.zeros(tokens.shape)
        inputs = StepInputs(none, none, None, zero, zero, oracle(None, tokens, None))
        masks, _ = policy.select(keys_of(size), inputs, row, ())
        noisy = jnp.where(masks, VOCABULARY, tokens)
        filled = Draw(VOCABULARY)(
            keys_of(size, 9), denoiser(None, noisy, jnp.zeros(size)), noisy, jnp.ones(()), jnp.ones(())
        )
        counts[name] = broken(jnp.where(noisy == process.mask_id, filled.tokens, noisy))
    assert counts["gstar"] < 0.95 * counts["star"] and counts["gstar"] <= broken(tokens)


def test_without_a_window_it_is_mdlm_draw_for_draw():
    rows = grid(LogLinear(), 6, LENGTH)
    never = grid(LogLinear(), 6, LENGTH, window=Window(0.0, 0.0))
    chex.assert_trees_all_equal(sampled("gstar", never, 64).tokens, sampled("ancestral", rows, 64).tokens)


def test_error_predictor_is_evaluated_and_counted_in_the_window_only():
    rows = loop(12)
    samples = sampled("gstar", rows, 8)
    assert (samples.evaluations == 13).all() and (samples.predictor_evaluations == int(rows.guided.sum())).all()
    assert not sampled("star", rows, 8).predictor_evaluations.any()


def test_prompts_do_not_change_and_no_mask_remains():
    prompt = jnp.full((64, LENGTH), VOCABULARY).at[:, 2:5].set(jnp.array([1, 2, 2]))
    for name in SAMPLERS:
        tokens = sampled(name, loop(8), prompt=prompt, size=64).tokens
        assert (tokens[:, 2:5] == prompt[:, 2:5]).all() and (tokens < VOCABULARY).all()


@pytest.mark.parametrize("name", ["star", "gstar"])
def test_example_depends_on_its_key_only(name):
    """It depends neither on other examples nor on compilation."""
    rows, size = loop(6), 6
    whole = sampled(name, rows, size).tokens
    policy, errors = SAMPLERS[name]
    sampler = MaskedSampler(
        denoiser, MaskedDiffusion(VOCABULARY, LogLinear()), policy, Draw(VOCABULARY), "draw", errors=errors
    )
    alone = sampler(None, keys_of(size)[4:5], jnp.full((1, LENGTH), VOCABULARY), rows).tokens
    np.testing.assert_array_equal(whole[4:5], alone)


def test_the_bound_is_a_weighted_cross_entropy():
    """KL(Cat(a x + (1 - a) m) || Cat(a p + (1 - a) m)) = -a log p(x) on masked positions, 0 on known ones."""
    alpha, probs, mask = 0.7, np.array([0.5, 0.3, 0.2]), 3
    truth = np.append(alpha * np.eye(3)[1], 1 - alpha)
    model = np.append(alpha * probs, 1 - alpha)
    support = truth > 0
    divergence = (truth[support] * np.log(truth[support] / model[support])).sum()
    process, logits = MaskedDiffusion(mask, Linear()), jnp.log(jnp.append(jnp.asarray(probs), 0.5))[None, None]
    nats = [
        -alpha * process.token_log_prob(logits, jnp.array([[state]]), jnp.array([[1]]))[0, 0] for state in (mask, 1)
    ]
    assert divergence == pytest.approx(0.842781, abs=1e-6)
    np.testing.assert_allclose(nats, [divergence, 0.0], rtol=1e-5)
