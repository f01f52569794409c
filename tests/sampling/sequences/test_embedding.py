"""The sampler of embedding diffusion: self-conditioning modes, time grids, and independence of examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.sampling.gaussian import solvers
from diffusion.sampling.sequences.embedding import EmbeddingSampler, cedi, even, scale_noise, spaced
from diffusion.schedules.gaussian import SigmaIsTime, SquareRootChain
from diffusion.types import SequenceCondition
from tests.checks import refused
from tests.languages import denoiser_of
from tests.small_translator import CODEC, VOCAB, batch_of, denoise, encode, weights
from tests.weights import keys_of

PAD, STEPS = VOCAB + 1, 4
BATCH = batch_of(4)
MASK = np.asarray(BATCH["weights"]) > 0
CONDITION = SequenceCondition(encode(weights(), BATCH["source"], jnp.asarray(MASK)), jnp.asarray(MASK))
SCHEDULE, CHAIN = SigmaIsTime(), SquareRootChain()


def grid_of(eta=0.0, factor=1.0, path=even, schedule=SCHEDULE, steps=STEPS):
    return solvers.gaussian_grid(path(schedule, steps), scale_noise(solvers.ddim(eta), factor))


@functools.cache
def compiled(mode="reuse", clamping=False, denoiser=denoise):
    return jax.jit(EmbeddingSampler(denoiser, CODEC, PAD, mode, clamping, diagnose=True))


def sample(mode="reuse", params=None, keys=None, condition=CONDITION, grid=None):
    params = weights() if params is None else params
    keys = keys_of(4) if keys is None else keys
    return compiled(mode)(params, keys, condition, grid_of() if grid is None else grid, 3.0)


def test_modes_differ_in_the_self_conditioning_input_only():
    """Without weights for it they agree; the first step of "reuse" has none, and that of "recompute" has."""
    params = weights() | {"memory": jnp.zeros_like(weights()["memory"])}
    modes = ("reuse", "recompute", "none")
    first, *others = (sample(mode, params) for mode in modes)
    for other in others:
        np.testing.assert_array_equal(other.steps.tokens, first.steps.tokens)
        np.testing.assert_allclose(other.steps.confidence, first.steps.confidence, rtol=1e-5)
    reuse, twice, none = (np.asarray(sample(mode).steps.confidence) for mode in modes)
    np.testing.assert_allclose(reuse[0], none[0], rtol=1e-5)
    assert np.abs(twice[0] - none[0]).max() > 1e-3 and np.abs(reuse[1] - none[1]).max() > 1e-3


def test_sample_depends_on_its_key_and_source_only():
    for grid in (grid_of(), grid_of(eta=1.0, factor=3.0)):
        whole = sample(grid=grid)
        part = sample(keys=keys_of(2), condition=jax.tree.map(lambda rows: rows[:2], CONDITION), grid=grid)
        np.testing.assert_array_equal(part.tokens, whole.tokens[:2])
        np.testing.assert_allclose(part.steps.confidence, whole.steps.confidence[:, :2], rtol=1e-5)
    tokens = np.asarray(sample().tokens)
    assert (sample(keys=keys_of(4, seed=9)).tokens != tokens).any()
    assert (tokens[~MASK] == PAD).all() and (tokens[MASK] < VOCAB).all()


def test_samples_are_the_last_clean_estimate():
    """This holds for all grids and levels of noise."""
    clean = CODEC.encode(weights(), BATCH["tokens"])
    perfect = compiled(denoiser=denoiser_of(lambda noisy, time: clean))
    for grid in (grid_of(1.0), grid_of(path=cedi), grid_of(path=spaced, schedule=CHAIN)):
        result = perfect(weights(), keys_of(4), CONDITION, grid, 3.0)
        np.testing.assert_array_equal(np.asarray(result.tokens)[MASK], np.asarray(BATCH["tokens"])[MASK])
        assert (result.steps.tokens == result.steps.tokens[-1:])[:, MASK].all()
        np.testing.assert_allclose(result.steps.error[1:], 0, atol=1e-6)


def test_the_network_reads_clamped_estimates_at_the_times_of_the_grid():
    """The self-conditioning input is zero in the first step and has embeddings in the others."""
    seen = []

    def recorded(params, noisy, time, cond=None, memory=None, *, keys=None):
        jax.debug.callback(lambda *values: seen.append(values), time, memory, ordered=True)
        return denoise(params, noisy, time, cond, memory)

    compiled(clamping=True, denoiser=recorded)(weights(), keys_of(4), CONDITION, grid_of(path=cedi), 3.0)
    jax.effects_barrier()
    times, memories = (np.stack(arrays) for arrays in zip(*seen, strict=True))
    np.testing.assert_allclose(times[:, 0], np.linspace(1, 0.99, STEPS + 1)[:-1], rtol=1e-6)
    rows = np.asarray(CODEC.rows(weights()))[:VOCAB]
    np.testing.assert_array_equal(memories[0], 0)
    distances = np.abs(memories[1:, ..., None, :] - rows).max(-1).min(-1)
    np.testing.assert_allclose(distances, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "indices"), [(5, [1999, 1499, 1000, 500, 0]), (3, [1999, 1000, 0]), (2, [1999, 0]), (1, [1999])], ids=str
)
def test_the_grid_of_difformer(steps, indices):
    """A single step begins at pure noise."""
    np.testing.assert_allclose(spaced(CHAIN, steps).time[:-1] * 2000 - 1, indices, atol=1e-6)


def test_time_grids():
    np.testing.assert_allclose(even(SCHEDULE, 5).time, [1, 0.8, 0.6, 0.4, 0.2, 0])
    path = cedi(SCHEDULE, 20)
    np.testing.assert_allclose(path.sigma[:-1], np.linspace(1, 1e-3, 21)[:-1])
    assert path.time[0] == 1 and path.time.min() == 0.99
    for result in (path, even(CHAIN, 4), spaced(CHAIN, 4)):
        assert (result.alpha[-1], result.sigma[-1]) == (1.0, 0.0)
    with refused(r"sample.steps: must lie in 1 .. 2000, not 0"):
        spaced(CHAIN, 0)


def test_ancestral_noise_keeps_the_factor():
    """If x has N(alpha x_0, (F sigma)^2), then x' has that of the next level, for a perfect estimate."""
    path = even(SCHEDULE, 7)
    table = scale_noise(solvers.ddim(1.0), 3.0)(path)
    variance = (table.state * 3 * path.sigma[:-1]) ** 2 + table.noise**2
    np.testing.assert_allclose(variance, 9 * path.sigma[1:] ** 2, atol=1e-12)


def test_unknown_modes_raise():
    with refused(r"sample.memory: unknown 'all'; known: reuse, recompute, none"):
        EmbeddingSampler(denoise, CODEC, PAD, "all")
