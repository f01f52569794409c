"""All policies on partially masked tokens: prompts of sub-tokens, and counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import (
    Policy,
    ancestral_step,
    confidence_step,
    first_hitting,
    guided_step,
    path_planning,
    random_order_step,
)
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.sampling.masked.subtokens import SubtokenDraw, rate_corrector
from diffusion.schedules.masking import LogLinear
from tests.checks import optimized
from tests.languages import denoiser_of
from tests.sampling.masked.exact import switched
from tests.weights import keys_of

# Five tokens of two base-3 sub-tokens, so that four of nine codes have no token.
VOCABULARY, SIZE, LENGTH, STEPS = 5, 64, 6, 12
CODEC = SubtokenCodec(VOCABULARY, 2)
M = CODEC.mask_id
PROCESS = PartialMaskedDiffusion(CODEC, LogLinear())
CORRECT = rate_corrector(PROCESS.schedule, np.linspace(1, 0, STEPS + 1), 10.0, 0.5, M)
POLICIES = {
    "ancestral": Policy(ancestral_step),
    "random_order": Policy(random_order_step),
    "confidence": Policy(confidence_step(0.5)),
    "first_hitting": first_hitting(PROCESS.schedule),
    "corrected": Policy(ancestral_step, correct=CORRECT),
    "gstar": Policy(guided_step(1.0)),
    "p2": Policy(path_planning(1.0)),
}
REVISING = {"corrected", "gstar", "p2"}
# A token, a first sub-token and a second sub-token are in the prompt, and three tokens are free.
PROMPT = np.tile(np.array([[1, 0], [0, M], [M, 1], [M, M], [M, M], [M, M]], np.int32), (SIZE, 1, 1))
GIVEN = PROMPT != M


def busy(noisy, time):
    """Return logits that depend on the whole state and differ between tokens."""
    context = (jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True))[:, ::2]
    return 4 * jnp.sin(context[..., None] + 2.0 * jnp.arange(5.0)[None, None])


def error_logits(params, state, cond):
    """Return error logits of tokens that depend on the whole proposal."""
    return jnp.sin(jnp.cumsum(state, axis=1)[:, ::2] + jnp.sum(state, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def paths():
    """Return all states [T + 1, B, L, 2] of the sampler, including the last, and the samples, by policy."""
    draw, rows = SubtokenDraw(PROCESS, Draw(VOCABULARY)), grid(PROCESS.schedule, STEPS, 2 * LENGTH, end=0.0)

    @optimized
    def run(which):
        policy, denoiser = switched(which, POLICIES.values()), denoiser_of(busy)
        sampler = MaskedSampler(denoiser, PROCESS, policy, draw, "none", errors=error_logits, trace=SIZE)
        return sampler(None, keys_of(SIZE), jnp.asarray(PROMPT.reshape(SIZE, -1)), rows)

    results = [run(which) for which in range(len(POLICIES))]
    shape = STEPS + 1, SIZE, LENGTH, 2
    return {
        name: (np.asarray(samples.trace.states).reshape(shape), samples)
        for name, samples in zip(POLICIES, results, strict=True)
    }


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_fills_the_masks_and_preserves_the_prompt(paths, name):
    states, samples = paths[name]
    assert (states == PROMPT)[:, GIVEN].all()
    tokens = CODEC.decode(jnp.asarray(states[-1]))
    assert tokens.max() < VOCABULARY, "the filter leaves valid codes alone"
    assert (tokens[:, 1] < 3).all() and set(np.unique(tokens[:, 2])) <= {1, 4}
    assert len(np.unique(tokens[:, 3:])) >= (2 if name == "p2" else VOCABULARY)
    assert (samples.evaluations == STEPS).all()
    np.testing.assert_array_equal(samples.idle, (states[1:] == states[:-1]).all(axis=(2, 3)).sum(axis=0))
    again = (states[:-1] != M) & (states[1:] == M)
    # P2 is greedy and does not mask confident sub-tokens again; the corrector does not act in the last step.
    assert again.any() == (name in ("corrected", "gstar")) and not again[-1].any()


@pytest.mark.parametrize("name", sorted(POLICIES.keys() - REVISING))
def test_known_subtokens_stay_known(paths, name):
    states, _ = paths[name]
    known = states[:-1] != M
    np.testing.assert_array_equal(states[1:][known], states[:-1][known])
    halves = (states != M).sum(axis=-1) == 1
    assert halves[1:, :, 3:].any()


@pytest.mark.parametrize("name", ["random_order", "confidence"])
def test_exact_counts_of_subtokens_follow_the_schedule(paths, name):
    states, _ = paths[name]
    expected = np.ceil(0.999 * np.linspace(1, 0, STEPS + 1)[1:] * (2 * LENGTH - 4) - 1e-6)
    masks = (states == M).sum(axis=(2, 3))[1:]
    np.testing.assert_array_equal(masks, np.broadcast_to(expected[:, None], masks.shape))


def test_first_hitting_reveals_one_subtoken_per_step(paths):
    """Only the last steps are idle, as many as there are sub-tokens in the prompt."""
    states, samples = paths["first_hitting"]
    revealed = np.diff((states != M).sum(axis=(2, 3)), axis=0)
    np.testing.assert_array_equal(revealed, np.repeat([[1]] * 8 + [[0]] * 4, SIZE, axis=1))
    assert (samples.idle == 4).all()
    # In random order each free sub-token is equally often among the first four.
    early = (states[4] != M)[:, 3:].mean(axis=0)
    assert np.all(np.abs(early - 0.5) < 4 * 0.5 / SIZE**0.5)


def test_masked_fraction_of_subtokens_follows_the_schedule(paths):
    masked = (paths["ancestral"][0] == M)[:, :, 3:].mean(axis=(1, 2, 3))
    expected = np.linspace(1, 0, STEPS + 1)
    assert np.all(np.abs(masked - expected) <= 4 * np.sqrt(expected * (1 - expected) / (6 * SIZE)))
