"""Objectives of Gaussian diffusion and of rewards: what they compare, at which times, and what they drop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.subtokens import PixelCodec
from diffusion.objectives.gaussian import Denoising
from diffusion.objectives.supervised import ScoreRegression
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import draws
from diffusion.schedules.gaussian import CosineSignal, ScaledLinear

SHAPE = (2, 2, 3)
CODEC = PixelCodec(256, image=SHAPE)
NULL_ID = 9


def batch(size, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "tokens": jnp.asarray(rng.integers(0, 256, (size, 12)), jnp.int32),
        "weights": jnp.ones((size, 12)),
        "prompt": jnp.asarray(rng.integers(0, 5, (size, 3)), jnp.int32),
        "score": jnp.asarray(rng.random(size), jnp.float32),
    }


def test_values_of_tokens_and_back():
    tokens = batch(5)["tokens"]
    values = CODEC.encode(tokens)
    assert values.shape == (5, *SHAPE)
    np.testing.assert_array_equal(CODEC.decode(values), tokens)
    # Channel-major rows: the first value of the second color is the fifth token.
    np.testing.assert_allclose(values[:, 0, 0, 1], tokens[:, 4] / 127.5 - 1, atol=1e-6)
    line = PixelCodec(11, -5.0, 5.0)
    np.testing.assert_allclose(line.encode(jnp.array([[0], [5], [10]]))[:, 0], [-5, 0, 5])
    np.testing.assert_array_equal(line.decode(jnp.array([[-9.0], [0.4], [99.0]]))[:, 0], [0, 5, 10])
    np.testing.assert_allclose(line.rounded(jnp.array([[0.4]])), 0.0)


@pytest.mark.parametrize("kind", ["epsilon", "clean", "velocity"])
def test_a_network_that_knows_the_target_has_no_loss(kind):
    """Told the clean data through the batch, it inverts the noise."""
    process, data = GaussianDiffusion(CosineSignal(), kind), batch(6)
    clean = CODEC.encode(data["tokens"])

    def knowing(params, noisy, time, told, *, keys=None):
        alpha, sigma = (level(time)[:, None, None, None] for level in (process.schedule.alpha, process.schedule.sigma))
        noise = (noisy - alpha * clean) / sigma
        return {"epsilon": noise, "clean": clean, "velocity": alpha * noise - sigma * clean}[kind] + params

    objective = Denoising(knowing, process, CODEC, null_id=NULL_ID, minimum_time=0.1)
    noise = draws(jax.random.key(0), "train", 0, 6)
    total, metrics = objective(0.0, data, noise)
    assert float(total) == pytest.approx(0, abs=1e-6)
    total, metrics = objective(0.5, data, noise)
    assert float(total / metrics["loss"][1]) == pytest.approx(0.25, rel=1e-4)
    assert float(metrics["loss"][1]) == 6


def test_examples_without_weight_do_not_count():
    data = batch(4) | {"weights": jnp.ones((4, 12)).at[2:].set(0)}

    def big(params, noisy, time, told, *, keys=None):
        return jnp.zeros_like(noisy).at[2:].set(1e3)

    objective = Denoising(big, GaussianDiffusion(CosineSignal()), CODEC, null_id=NULL_ID)
    total, metrics = objective(0.0, data, draws(jax.random.key(0), "train", 0, 4))
    assert float(metrics["loss"][1]) == 2
    assert float(total) < 10


def test_prompts_are_dropped_in_training_alone():
    seen = []

    def listening(params, noisy, time, told, *, keys=None):
        seen.append(np.asarray(told))
        return jnp.zeros_like(noisy)

    data, noise = batch(2000), draws(jax.random.key(0), "train", 0, 2000)
    objective = Denoising(listening, GaussianDiffusion(CosineSignal()), CODEC, prompt_dropout=0.1, null_id=NULL_ID)
    objective(0.0, data, noise)
    dropped = np.all(seen[0] == NULL_ID, axis=1)
    assert 0.07 < dropped.mean() < 0.13
    np.testing.assert_array_equal(seen[0][~dropped], data["prompt"][~dropped])
    objective(0.0, data, noise, train=False)
    np.testing.assert_array_equal(seen[1], data["prompt"])


def never(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A denoiser that nothing calls."""
    raise AssertionError


def test_times_are_the_steps_of_a_chain_or_cover_the_interval():
    noise = draws(jax.random.key(0), "train", 0, 1000)
    chain = Denoising(never, GaussianDiffusion(ScaledLinear()), CODEC).times(noise.uniform)
    np.testing.assert_allclose(np.sort(np.asarray(chain * 1000)), np.arange(1, 1001), atol=1e-3)
    line = Denoising(never, GaussianDiffusion(CosineSignal()), CODEC, minimum_time=0.2).times(noise.uniform)
    assert 0.2 <= float(line.min()) < 0.21 and 0.99 < float(line.max()) < 1


def test_scores_are_regressed_on_noised_pictures():
    levels = []

    def judge(params, picture, time, told, *, keys=None):
        levels.append(picture - CODEC.encode(data["tokens"]))
        return jnp.full(len(picture), params)

    data, noise = batch(500), draws(jax.random.key(0), "train", 0, 500)
    objective = ScoreRegression(judge, CODEC, noise=0.4)
    total, _ = objective(0.3, data, noise)
    assert float(total) == pytest.approx(float(jnp.sum((0.3 - data["score"]) ** 2)), rel=1e-5)
    spread = np.asarray(levels[0]).reshape(500, -1).std(axis=1)
    # Uniform on [0, 0.4]: mean 0.2, and some with nearly none.
    assert 0.17 < spread.mean() < 0.22 and spread.min() < 0.05 and spread.max() < 0.7
    objective(0.3, data, noise, train=False)
    assert float(jnp.max(jnp.abs(levels[1]))) == 0


def test_a_source_without_scores_is_refused():
    data = {name: array for name, array in batch(2).items() if name != "score"}
    with pytest.raises(ValueError, match=r"objective.name: reward needs a source with scores"):
        ScoreRegression(never, CODEC)(0.0, data, draws(jax.random.key(0), "train", 0, 2))
