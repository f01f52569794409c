"""The cache: a step after one without changes reuses its logits, and evaluations are counted."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.processes.masking import MaskedDiffusion
from diffusion.sampling.masked.grid import grid
from diffusion.sampling.masked.policies import Policy, ancestral_step
from diffusion.sampling.masked.sampler import MaskedSampler
from diffusion.schedules.masking import Linear
from diffusion.types import Proposal
from experiments import families
from tests.checks import refused
from tests.languages import denoiser_of
from tests.sampling.masked.recording import LENGTH, MASK, PARAMS, STEPS, config_of, next_memory, recorded
from tests.weights import keys_of


def test_cache_skips_idle_steps_and_preserves_the_self_conditioning_input():
    """The count is that of actual evaluations; after idle steps the network reads its last prediction."""
    samples, (states, memories, logits) = recorded(config_of(sample__cache=True))
    count = len(states)
    assert (samples.evaluations == count).all() and 2 < count < STEPS + 1
    assert all((states[step + 1] != states[step]).any() for step in range(count - 2))
    assert not memories[0].any()
    # Noise removal evaluates the network even after an idle step.
    for step in range(count - 1 - int((states[-1] == states[-2]).all())):
        expected = next_memory(PARAMS, logits[step], states[step], states[step + 1])
        np.testing.assert_array_equal(memories[step + 1], expected)


@dataclass(frozen=True)
class Constant:
    """A proposal of token 0 at all positions."""

    def __call__(self, keys, logits, noisy, temperature, nucleus):
        return Proposal(jnp.zeros(noisy.shape, jnp.int32), jnp.zeros(noisy.shape), jnp.zeros(noisy.shape))

    def best(self, logits, noisy):
        return jnp.zeros(noisy.shape, jnp.int32)


@pytest.mark.parametrize(
    ("steps", "size", "length", "runs", "published"),
    [(32, 1, 32, 600, 20.78), (4, 1, 2, 4000, 2.31), (16, 3, 4, 600, None), (1000, 1, 1024, 16, 641.4)],
)
def test_number_of_cached_evaluations_matches_its_expectation(steps, size, length, runs, published):
    """1 + (T - 1)(1 - (1 - 1/T)^(B L)) for B sequences of L tokens; a step is idle if no sequence changed."""
    unchanging = denoiser_of(lambda noisy, time: jnp.zeros((len(noisy), 1, 1)))
    sampler = MaskedSampler(
        unchanging, MaskedDiffusion(MASK, Linear()), Policy(ancestral_step), Constant(), "none", None, cache=True
    )
    rows, prompt = grid(Linear(), steps, length, end=0.0), jnp.full((size, length), MASK)

    @jax.jit
    @jax.vmap
    def once(key):
        samples = sampler(None, jax.random.split(key, size), prompt, rows)
        return samples.evaluations

    counts = np.asarray(once(jax.random.split(jax.random.key(0), runs)))
    assert (counts == counts[:, :1]).all(), "one number for the whole batch"
    expected = 1 + (steps - 1) * (1 - (1 - 1 / steps) ** (size * length))
    assert published is None or expected == pytest.approx(published, abs=6e-3 if steps < 1000 else 0.05)
    error = counts[:, 0].std() / runs**0.5
    assert error < 0.01 * expected
    assert abs(counts.mean() - expected) < min(0.03 * expected, 4.5 * error)


def test_cache_does_not_change_samples_without_self_conditioning():
    """Without time conditioning the logits of idle steps are equal; with time conditioning a cache is an error."""
    base = families.system(config_of(memory__adapter="none"), MASK)
    old = {name: part for name, part in PARAMS.items() if name != "adapter"}
    keys, drawn = keys_of(4), {}
    for cache in (False, True):
        config = config_of(memory__adapter="none", sample__cache=cache, sample__steps=3 * STEPS)
        drawn[cache] = jax.jit(families.sampler(config, base))(old, keys, jnp.full((4, LENGTH), MASK))
    np.testing.assert_array_equal(drawn[True].tokens, drawn[False].tokens)
    np.testing.assert_array_equal(drawn[True].idle, drawn[False].idle)
    assert drawn[True].evaluations.max() < drawn[False].evaluations.min() == 3 * STEPS + 1
    with refused(r"sample\.cache: a network that reads time"):
        families.sampler(config_of(sample__cache=True, model__time_conditioning=True), base)
