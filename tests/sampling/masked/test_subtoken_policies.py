"""All policies on partially masked tokens: prompts of sub-tokens, and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.rng import example_keys
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

# Five tokens of two base-3 sub-tokens, so that four of nine codes have no token.
VOCABULARY = 5
CODEC = SubtokenCodec(VOCABULARY, 2)
M = CODEC.mask_id
PROCESS = PartialMaskedDiffusion(CODEC, LogLinear())
ANCESTRAL = Policy(ancestral_step)


def busy(noisy):
    """Return logits that depend on the whole state and differ between tokens."""
    context = (jnp.cumsum(noisy, axis=1) + jnp.sum(noisy, axis=1, keepdims=True))[:, ::2]
    return 4 * jnp.sin(context[..., None] + 2.0 * jnp.arange(5.0)[None, None])


def error_logits(params, state, cond):
    """Return error logits of tokens that depend on the whole proposal."""
    return jnp.sin(jnp.cumsum(state, axis=1)[:, ::2] + jnp.sum(state, axis=1, keepdims=True))


SIZE, LENGTH, STEPS = 64, 6, 12
CORRECT = rate_corrector(PROCESS.schedule, np.linspace(1, 0, STEPS + 1), 10.0, 0.5, CODEC.mask_id)
HITTING = first_hitting(PROCESS.schedule)
POLICIES = {
    "ancestral": ANCESTRAL,
    "random_order": Policy(random_order_step),
    "confidence": Policy(confidence_step(0.5)),
    "first_hitting": HITTING,
    "corrected": ANCESTRAL,
    "gstar": Policy(guided_step(1.0)),
    "p2": Policy(path_planning(1.0)),
}
REVISING = {"corrected", "gstar", "p2"}
# A token, a first sub-token and a second sub-token are in the prompt, and three tokens are free.
PROMPT = jnp.broadcast_to(jnp.array([[1, 0], [0, M], [M, 1], [M, M], [M, M], [M, M]])[None], (SIZE, LENGTH, 2))
GIVEN = np.asarray(PROMPT != M)


def policy_number(which):
    """Return the policy of this number, which may be traced, so that one program serves all policies."""
    names = list(POLICIES)

    def select(keys, inputs, row, extra):
        branches = [lambda policy=policy: policy.select(keys, inputs, row, extra)[0] for policy in POLICIES.values()]
        return jax.lax.switch(which, branches), extra

    def time(extra, row, size):
        return jnp.where(which == names.index("first_hitting"), HITTING.time(extra, row, size), row.time)

    def correct(keys, state, proposal, row):
        return jnp.where(which == names.index("corrected"), CORRECT(keys, state, proposal, row), state)

    return Policy(select, HITTING.init, time, correct)


@pytest.fixture(scope="module")
def paths():
    """Return all states [T + 1, B, L, 2] of the sampler, including the last, and the samples, by policy."""
    seen = []

    def recording(params, noisy, *rest, **options):
        jax.debug.callback(lambda noisy: seen.append(np.asarray(noisy)), noisy, ordered=True)
        return busy(noisy)

    draw, rows = SubtokenDraw(PROCESS, Draw(VOCABULARY)), grid(PROCESS.schedule, STEPS, 2 * LENGTH, end=0.0)
    keys, prompt = example_keys(jax.random.key(0), jnp.arange(SIZE)), PROMPT.reshape(SIZE, -1)

    @jax.jit
    def run(which):
        policy = policy_number(which)
        return MaskedSampler(recording, PROCESS, policy, draw, "none", errors=error_logits)(None, keys, prompt, rows)

    results = {}
    for which, name in enumerate(POLICIES):
        seen.clear()
        samples = run(which)
        jax.effects_barrier()
        results[name] = np.stack([*seen, samples.tokens]).reshape(STEPS + 1, SIZE, LENGTH, 2), samples
    return results


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_fills_the_masks_and_preserves_the_prompt(paths, name):
    states, samples = paths[name]
    for state in states:
        np.testing.assert_array_equal(state[GIVEN], np.asarray(PROMPT)[GIVEN])
    tokens = CODEC.decode(jnp.asarray(states[-1]))
    assert tokens.max() < VOCABULARY, "the filter leaves valid codes alone"
    assert (tokens[:, 1] < 3).all() and set(np.unique(tokens[:, 2])) <= {1, 4}
    # P2 is greedy and does not mask confident sub-tokens again.
    assert len(np.unique(tokens[:, 3:])) >= (2 if name == "p2" else VOCABULARY)
    assert (samples.evaluations == len(states) - 1).all()
    np.testing.assert_array_equal(samples.idle, (states[1:] == states[:-1]).all(axis=(2, 3)).sum(axis=0))


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
    free = 2 * LENGTH - 4
    expected = np.ceil(0.999 * np.linspace(1, 0, STEPS + 1)[1:] * free - 1e-6)
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


def test_corrector_masks_again_and_preserves_the_prompt(paths):
    states, _ = paths["corrected"]
    again = (states[:-1] != M) & (states[1:] == M)
    assert again[1:-1].any() and not again[-1].any(), "the last step is not corrected"
    assert not again[:, GIVEN].any()
