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
from tests.languages import denoiser_of
from tests.small_translator import CODEC, VOCAB, batch_of, denoise, encode, weights
from tests.weights import keys_of

PAD = VOCAB + 1
BATCH = batch_of(4)
SCHEDULE = SigmaIsTime()


def condition_of(batch):
    mask = batch["weights"] > 0
    return SequenceCondition(encode(weights(), batch["source"], mask), mask)


def grid_of(steps, eta=0.0, factor=1.0, path=even):
    return solvers.gaussian_grid(path(SCHEDULE, steps), scale_noise(solvers.ddim(eta), factor))


@functools.cache
def compiled(mode, clamping=False, denoiser=denoise):
    return jax.jit(EmbeddingSampler(denoiser, CODEC, PAD, mode, clamping, diagnose=True))


def sample(mode="reuse", steps=4, params=None, keys=None, batch=BATCH, grid=None, scale=3.0, **fields):
    params = weights() if params is None else params
    grid = grid_of(steps) if grid is None else grid
    keys = keys_of(len(batch["tokens"])) if keys is None else keys
    return compiled(mode, **fields)(params, keys, condition_of(batch), grid, scale)


def test_one_step_has_no_self_conditioning_input():
    one, other = (sample(mode, 1) for mode in ("reuse", "none"))
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.steps.confidence, other.steps.confidence)


def test_modes_agree_without_weights_for_the_self_conditioning_input():
    params = weights() | {"memory": jnp.zeros_like(weights()["memory"])}
    result = [sample(mode, 4, params) for mode in ("reuse", "recompute", "none")]
    for other in result[1:]:
        np.testing.assert_array_equal(other.steps.tokens, result[0].steps.tokens)
        np.testing.assert_allclose(other.steps.confidence, result[0].steps.confidence, rtol=1e-5)
    # With weights, "recompute" differs in the first step, and "reuse" differs from "none" in the second.
    reuse, twice, none = (np.asarray(sample(mode, 4).steps.confidence) for mode in ("reuse", "recompute", "none"))
    np.testing.assert_allclose(reuse[0], none[0], rtol=1e-5)
    assert np.abs(twice[0] - none[0]).max() > 1e-3 and np.abs(reuse[1] - none[1]).max() > 1e-3


def test_sample_depends_on_its_key_and_source_only():
    for grid in (grid_of(4), grid_of(4, eta=1.0, factor=3.0)):
        whole = sample(grid=grid)
        np.testing.assert_array_equal(sample(grid=grid).tokens, whole.tokens)
        part = sample(grid=grid, keys=keys_of(2), batch={name: rows[:2] for name, rows in BATCH.items()})
        np.testing.assert_array_equal(part.tokens, whole.tokens[:2])
        np.testing.assert_allclose(part.steps.confidence, whole.steps.confidence[:, :2], rtol=1e-5)
    assert (sample(keys=keys_of(4, seed=9)).tokens != sample().tokens).any()


def test_targets_end_where_their_mask_does():
    tokens, mask = np.asarray(sample().tokens), np.asarray(BATCH["weights"]) > 0
    assert (tokens[~mask] == PAD).all() and (tokens[mask] < VOCAB).all()


def test_samples_are_the_last_clean_estimate():
    """This holds for all grids and levels of noise."""
    clean = CODEC.encode(weights(), BATCH["tokens"])
    perfect = denoiser_of(lambda noisy, time: clean)
    mask = np.asarray(BATCH["weights"]) > 0
    for grid in (grid_of(1), grid_of(5, 1.0), grid_of(5, path=cedi), grid_of(5, path=lambda _, k: spaced(CHAIN, k))):
        result = sample(grid=grid, denoiser=perfect)
        np.testing.assert_array_equal(np.asarray(result.tokens)[mask], np.asarray(BATCH["tokens"])[mask])
        assert (result.steps.tokens == result.steps.tokens[-1:])[:, mask].all()
        np.testing.assert_allclose(result.steps.error[1:], 0, atol=1e-6)


def test_clamped_estimates_are_embeddings_in_the_self_conditioning_input():
    seen = jax.eval_shape(lambda: CODEC.rows(weights())).shape
    rows = np.asarray(CODEC.rows(weights()))[:VOCAB]
    memories = []

    def recorded(params, noisy, time, cond=None, memory=None, *, keys=None):
        jax.debug.callback(lambda value: memories.append(np.asarray(value)), memory)
        return denoise(params, noisy, time, cond, memory)

    jax.block_until_ready(sample(clamping=True, denoiser=recorded))
    distances = np.abs(memories[1].reshape(-1, 1, seen[1]) - rows[None]).max(-1).min(-1)
    np.testing.assert_array_equal(memories[0], 0)
    np.testing.assert_allclose(distances, 0, atol=1e-5)


CHAIN = SquareRootChain()


def test_time_grids():
    """Five steps of Difformer are the indices 0, 500, 1000, 1499, 1999, and a single step begins at pure noise."""

    def indices(steps):
        return (spaced(CHAIN, steps).time[:-1] * 2000 - 1).round().astype(int).tolist()

    assert indices(5) == [1999, 1499, 1000, 500, 0]
    assert indices(3) == [1999, 1000, 0] and indices(2) == [1999, 0] and indices(1) == [1999]
    np.testing.assert_allclose(even(SCHEDULE, 5).time, [1, 0.8, 0.6, 0.4, 0.2, 0])
    path = cedi(SCHEDULE, 20)
    np.testing.assert_allclose(path.sigma[:-1], np.linspace(1, 1e-3, 21)[:-1])
    assert path.time[0] == 1 and path.time.min() == 0.99
    for result in (path, even(CHAIN, 4), spaced(CHAIN, 4)):
        assert (result.alpha[-1], result.sigma[-1]) == (1.0, 0.0)
    assert len(even(SCHEDULE, 2000).time) == 2001
    with pytest.raises(ValueError, match=r"sample.steps: must lie in 1 .. 2000, not 0"):
        spaced(CHAIN, 0)


def test_network_reads_the_time_of_the_grid():
    times = []

    def recorded(params, noisy, time, cond=None, memory=None, *, keys=None):
        jax.debug.callback(lambda value: times.append(float(value[0])), time)
        return denoise(params, noisy, time, cond, memory)

    jax.block_until_ready(sample(grid=grid_of(4, path=cedi), denoiser=recorded))
    np.testing.assert_allclose(times, np.linspace(1, 0.99, 5)[:-1], rtol=1e-6)


def test_ancestral_noise_keeps_the_factor():
    """If x has N(alpha x_0, (F sigma)^2), then x' has that of the next level, for a perfect estimate."""
    path = even(SCHEDULE, 7)
    table = scale_noise(solvers.ddim(1.0), 3.0)(path)
    variance = (table.state * 3 * path.sigma[:-1]) ** 2 + table.noise**2
    np.testing.assert_allclose(variance, 9 * path.sigma[1:] ** 2, atol=1e-12)


def test_unknown_modes_raise():
    with pytest.raises(ValueError, match=r"sample.memory: unknown 'all'; known: reuse, recompute, none"):
        EmbeddingSampler(denoise, CODEC, PAD, "all")
