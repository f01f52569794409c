"""Star-shaped and guided sampling of an exact language with an error oracle."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.oracles.enumerable import Enumerable
from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Window, grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, guided_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear, LogLinear, Loop
from tests.checks import optimized
from tests.languages import denoiser_of
from tests.sampling.masked.exact import switched
from tests.weights import keys_of

VOCABULARY, LENGTH, SIZE, STEPS, TRACED = 4, 6, 2048, 12, 64


def tied_pairs():
    """Return the uniform language of three pairs of equal tokens, in which parallel draws break pairs."""
    table = np.zeros((VOCABULARY,) * LENGTH)
    for pairs in itertools.product(range(VOCABULARY), repeat=LENGTH // 2):
        table[tuple(np.repeat(pairs, 2))] = 1
    return Enumerable(table.ravel() / table.sum(), VOCABULARY, LENGTH)


LANGUAGE, PROCESS = tied_pairs(), MaskedDiffusion(VOCABULARY, LogLinear())
POLICIES = {
    "ancestral": Policy(ancestral_step),
    "star": Policy(guided_step(math.inf)),
    "gstar": Policy(guided_step(1.0)),
}
LOOP = grid(Loop(), STEPS, LENGTH, process=LogLinear(), window=Window(0.05, 0.55))
PLAIN = grid(LogLinear(), STEPS, LENGTH)


def broken(tokens):
    """Return whether the two tokens of each pair differ."""
    pairs = tokens.reshape(len(tokens), -1, 2)
    return pairs[..., 0] != pairs[..., 1]


def oracle(params, tokens, cond):
    """Return the error logits of an oracle that marks both tokens of every unequal pair."""
    return jnp.where(jnp.repeat(broken(tokens), 2, axis=1), 20.0, -20.0)


@optimized
def compiled(which, keys, prompt, rows):
    policy, denoiser = switched(which, POLICIES.values()), denoiser_of(LANGUAGE.denoise)
    sampler = MaskedSampler(denoiser, PROCESS, policy, Draw(VOCABULARY), "draw", errors=oracle, trace=TRACED)
    return sampler(None, keys, prompt, rows)


def sampled(name, rows=LOOP, size=SIZE, prompt=None):
    prompt = np.full((SIZE, LENGTH), VOCABULARY, np.int32) if prompt is None else prompt
    return compiled(list(POLICIES).index(name), keys_of(SIZE)[:size], prompt[:size], rows)


def test_error_oracle_repairs_broken_pairs():
    """At equal evaluations of the denoiser it has fewer broken pairs than unguided revision and MDLM."""
    plain, unguided, guided = (
        np.asarray(sampled(*options).tokens) for options in (("ancestral", PLAIN), ("star",), ("gstar",))
    )
    assert broken(guided).mean() < 0.5 * broken(unguided).mean()
    assert broken(guided).mean() < 0.8 * broken(plain).mean()
    assert LANGUAGE.total_variation(guided) < LANGUAGE.total_variation(plain)


@pytest.mark.parametrize("name", ["ancestral", "gstar"])
def test_the_trace_leads_from_the_prompt_to_the_sample(name):
    """Where a step leaves both tokens of a pair, they are those that the error predictor has read in its window."""
    samples = sampled(name)
    assert (samples.evaluations == STEPS + 1).all()
    assert (samples.predictor_evaluations == int(LOOP.guided.sum())).all()
    states, times, guided, logits = (np.asarray(part) for part in samples.trace)
    assert (states[0] == VOCABULARY).all()
    np.testing.assert_array_equal(states[-1], samples.tokens[:TRACED])
    np.testing.assert_array_equal(times[:, 0], [*LOOP.time, LOOP.next_time[-1], 0])
    known = states != VOCABULARY
    again = (known[:-1] & ~known[1:]).any(axis=(1, 2))
    assert again.any() == (name == "gstar") and not again[:-1][~guided].any()
    after, errors = states[1:-1].reshape(-1, LENGTH), logits.reshape(-1, LENGTH // 2, 2)
    kept = (after != VOCABULARY).reshape(errors.shape).all(axis=2) & np.repeat(guided, TRACED)[:, None]
    np.testing.assert_array_equal(errors[kept], np.where(broken(after)[kept], 20.0, -20.0)[:, None] * np.ones(2))
    assert kept.any() and not logits[~guided].any()


def test_without_a_window_it_is_mdlm_draw_for_draw():
    never = grid(LogLinear(), STEPS, LENGTH, window=Window(0.0, 0.0))
    expected = sampled("ancestral", PLAIN)
    np.testing.assert_array_equal(sampled("gstar", never).tokens, expected.tokens)
    assert not sampled("gstar", never).predictor_evaluations.any()


@pytest.mark.parametrize("name", POLICIES)
def test_prompts_do_not_change_and_no_mask_remains(name):
    prompt = np.full((SIZE, LENGTH), VOCABULARY, np.int32)
    prompt[:, 2:5] = [1, 2, 2]
    tokens = sampled(name, prompt=prompt).tokens
    assert (tokens[:, 2:5] == prompt[:, 2:5]).all() and (tokens < VOCABULARY).all()


@pytest.mark.parametrize("name", ["star", "gstar"])
def test_example_depends_on_its_key_only(name):
    np.testing.assert_array_equal(sampled(name, size=4).tokens, sampled(name).tokens[:4])


def test_the_bound_is_a_weighted_cross_entropy():
    """KL(Cat(a x + (1 - a) m) || Cat(a p + (1 - a) m)) = -a log p(x) on masked positions, 0 on known ones."""
    alpha, probs, mask = 0.7, np.array([0.5, 0.3, 0.2]), 3
    truth, model = np.append(alpha * np.eye(3)[1], 1 - alpha), np.append(alpha * probs, 1 - alpha)
    support = truth > 0
    divergence = (truth[support] * np.log(truth[support] / model[support])).sum()
    process, logits = MaskedDiffusion(mask, Linear()), jnp.log(jnp.append(jnp.asarray(probs), 0.5))[None, None]
    nats = -alpha * process.token_log_prob(jnp.repeat(logits, 2, 1), jnp.array([[mask, 1]]), jnp.array([[1, 1]]))
    assert divergence == pytest.approx(0.842781, abs=1e-6)
    np.testing.assert_allclose(nats, [[divergence, 0.0]], rtol=1e-5)
