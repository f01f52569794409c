"""The states that a masked sampler returns with its samples: which they are, and that they change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.rng import example_keys
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Window, grid
from diffusion.sampling.masked.policies import Policy, ancestral_step, guided_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear

MASK, LENGTH, STEPS, SIZE, TRACED = 5, 12, 6, 5, 2
PROCESS = MaskedDiffusion(MASK, Linear())
KEYS = example_keys(jax.random.key(3), jnp.arange(SIZE))
PROMPT = jnp.full((SIZE, LENGTH), MASK).at[:, ::4].set(2)


def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    """Return logits that depend on the whole sequence."""
    return jnp.sin(jnp.cumsum(noisy, axis=1)[..., None] * 0.3 + jnp.arange(MASK + 1)[None, None, :])


def error_logits(params, proposal, cond):
    return proposal - 2.0


def sampled(policy, final, errors, trace):
    sampler = MaskedSampler(denoiser, PROCESS, policy, Draw(MASK), final, errors=errors, trace=trace)
    end = 0.0 if final == "none" else 0.2
    rows = grid(PROCESS.schedule, STEPS, LENGTH, end=end, window=Window(0.3, 0.8))
    return jax.jit(sampler)(None, KEYS, PROMPT, rows)


@pytest.mark.parametrize("final", ["none", "draw"])
@pytest.mark.parametrize("name", ["ancestral", "gstar"])
def test_states_lead_from_the_prompt_to_the_sample(name, final):
    guided = name == "gstar"
    policy = Policy(guided_step(1.0) if guided else ancestral_step)
    errors = error_logits if guided else None
    plain, samples = (sampled(policy, final, errors, trace) for trace in (0, TRACED))
    assert plain.trace is None
    for before, after in zip(plain[:-1], samples[:-1], strict=True):
        np.testing.assert_array_equal(before, after)
    states, times, steps, logits = samples.trace
    count = STEPS + (1 if final == "none" else 2)
    assert states.shape == (count, TRACED, LENGTH) and times.shape == (count, TRACED)
    np.testing.assert_array_equal(states[0], PROMPT[:TRACED])
    np.testing.assert_array_equal(states[-1], plain.tokens[:TRACED])
    assert times[0, 0] == 1 and times[-1, 0] == 0 and (np.diff(times, axis=0) < 0).all()
    assert (states[:, :, ::4] == 2).all() and (states[1:STEPS] == MASK).any()
    known = np.asarray(states != MASK)
    again = (known[:-1] & ~known[1:]).any(axis=(1, 2))
    assert again.any() == guided and not again[: len(steps)][~np.asarray(steps)].any()
    if guided:
        shown = np.asarray(logits).any(axis=(1, 2))
        np.testing.assert_array_equal(shown, steps)
        # Where a step leaves a token, it is the one that the error predictor has read.
        kept = known[1 : STEPS + 1] & np.asarray(steps)[:, None, None]
        np.testing.assert_array_equal(np.asarray(logits)[kept], np.asarray(states)[1 : STEPS + 1][kept] - 2.0)
    else:
        assert logits is None
