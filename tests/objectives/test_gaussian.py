"""The denoising objective and the reward model's: targets, times, prompt dropout, and the pixel codec."""

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


def test_pixel_codec_round_trip():
    tokens = batch(5)["tokens"]
    values = CODEC.encode(tokens)
    assert values.shape == (5, *SHAPE)
    np.testing.assert_array_equal(CODEC.decode(values), tokens)
    # In channel-major rows the first value of the second channel is the fifth token.
    np.testing.assert_allclose(values[:, 0, 0, 1], tokens[:, 4] / 127.5 - 1, atol=1e-6)
    line = PixelCodec(11, -5.0, 5.0)
    np.testing.assert_allclose(line.encode(jnp.array([[0], [5], [10]]))[:, 0], [-5, 0, 5])
    np.testing.assert_array_equal(line.decode(jnp.array([[-9.0], [0.4], [99.0]]))[:, 0], [0, 5, 10])
    np.testing.assert_allclose(line.rounded(jnp.array([[0.4]])), 0.0)


@pytest.mark.parametrize("kind", ["epsilon", "clean", "velocity"])
def test_the_loss_of_the_exact_target_is_zero(kind):
    """The network computes the target from the clean data."""
    process, data = GaussianDiffusion(CosineSignal(), kind), batch(6)
    clean = CODEC.encode(data["tokens"])

    def exact(params, noisy, time, prompt, *, keys=None):
        alpha, sigma = (level(time)[:, None, None, None] for level in (process.schedule.alpha, process.schedule.sigma))
        noise = (noisy - alpha * clean) / sigma
        return {"epsilon": noise, "clean": clean, "velocity": alpha * noise - sigma * clean}[kind] + params

    objective = Denoising(exact, process, CODEC, null_id=NULL_ID, minimum_time=0.1)
    noise = draws(jax.random.key(0), "train", 0, 6)
    total, metrics = objective(0.0, data, noise)
    assert float(total) == pytest.approx(0, abs=1e-6)
    total, metrics = objective(0.5, data, noise)
    assert float(total / metrics["loss"][1]) == pytest.approx(0.25, rel=1e-4)
    assert float(metrics["loss"][1]) == 6


def test_examples_of_weight_zero_do_not_count():
    data = batch(4) | {"weights": jnp.ones((4, 12)).at[2:].set(0)}

    def wrong(params, noisy, time, prompt, *, keys=None):
        return jnp.zeros_like(noisy).at[2:].set(1e3)

    objective = Denoising(wrong, GaussianDiffusion(CosineSignal()), CODEC, null_id=NULL_ID)
    total, metrics = objective(0.0, data, draws(jax.random.key(0), "train", 0, 4))
    assert float(metrics["loss"][1]) == 2
    assert float(total) < 10


def test_prompts_are_dropped_in_training_only():
    prompts = []

    def recording(params, noisy, time, prompt, *, keys=None):
        prompts.append(np.asarray(prompt))
        return jnp.zeros_like(noisy)

    data, noise = batch(2000), draws(jax.random.key(0), "train", 0, 2000)
    objective = Denoising(recording, GaussianDiffusion(CosineSignal()), CODEC, prompt_dropout=0.1, null_id=NULL_ID)
    objective(0.0, data, noise)
    dropped = np.all(prompts[0] == NULL_ID, axis=1)
    assert 0.07 < dropped.mean() < 0.13
    np.testing.assert_array_equal(prompts[0][~dropped], data["prompt"][~dropped])
    objective(0.0, data, noise, train=False)
    np.testing.assert_array_equal(prompts[1], data["prompt"])


def never(params, noisy, time, cond=None, memory=None, *, keys=None):
    """A denoiser that must not be called."""
    raise AssertionError


def test_times_are_steps_of_a_chain_or_uniform_in_the_interval():
    noise = draws(jax.random.key(0), "train", 0, 1000)
    chain = Denoising(never, GaussianDiffusion(ScaledLinear()), CODEC).times(noise.uniform)
    np.testing.assert_allclose(np.sort(np.asarray(chain * 1000)), np.arange(1, 1001), atol=1e-3)
    line = Denoising(never, GaussianDiffusion(CosineSignal()), CODEC, minimum_time=0.2).times(noise.uniform)
    assert 0.2 <= float(line.min()) < 0.21 and 0.99 < float(line.max()) < 1


def test_scores_are_regressed_on_noisy_images():
    noises = []

    def reward(params, image, time, prompt, *, keys=None):
        noises.append(image - CODEC.encode(data["tokens"]))
        return jnp.full(len(image), params)

    data, noise = batch(500), draws(jax.random.key(0), "train", 0, 500)
    objective = ScoreRegression(reward, CODEC, noise=0.4)
    total, _ = objective(0.3, data, noise)
    assert float(total) == pytest.approx(float(jnp.sum((0.3 - data["score"]) ** 2)), rel=1e-5)
    deviation = np.asarray(noises[0]).reshape(500, -1).std(axis=1)
    # Uniform on [0, 0.4]: the mean is 0.2.
    assert 0.17 < deviation.mean() < 0.22 and deviation.min() < 0.05 and deviation.max() < 0.7
    objective(0.3, data, noise, train=False)
    assert float(jnp.max(jnp.abs(noises[1]))) == 0


def test_data_without_scores_are_rejected():
    data = {name: array for name, array in batch(2).items() if name != "score"}
    with pytest.raises(ValueError, match=r"objective.name: reward needs a source with scores"):
        ScoreRegression(never, CODEC)(0.0, data, draws(jax.random.key(0), "train", 0, 2))
