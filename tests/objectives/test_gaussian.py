"""The denoising objective and the reward model's: targets, times, prompt dropout, and the pixel codec."""

from functools import partial

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
from tests.checks import refused

SHAPE, SIZE = (2, 2, 3), 1000
CODEC = PixelCodec(256, image=SHAPE)
NULL_ID = 9
rng = np.random.default_rng(0)
BATCH = {
    "tokens": rng.integers(0, 256, (SIZE, 12)).astype(np.int32),
    "weights": np.ones((SIZE, 12), np.float32),
    "prompt": rng.integers(0, 5, (SIZE, 3)).astype(np.int32),
    "score": rng.random(SIZE).astype(np.float32),
}
NOISE = draws(jax.random.key(0), "train", 0, SIZE)


@partial(jax.jit, static_argnums=(0, 1, 2))
def run(kind, network, train, params, batch, noise):
    """Loss, metrics, and the inputs (data, time, prompt) of the network."""
    calls = []

    def denoiser(params, noisy, time, prompt, *, keys=None):
        calls.append((noisy, time, prompt))
        return network(params, noisy, time)

    return *kind(denoiser)(params, batch, noise, train), calls[0]


def zero(params, noisy, time):
    return jnp.zeros_like(noisy)


def test_pixel_codec_round_trip():
    tokens = BATCH["tokens"][:5]
    values = CODEC.encode(tokens)
    assert values.shape == (5, *SHAPE)
    np.testing.assert_array_equal(CODEC.decode(values), tokens)
    # In channel-major rows the first value of the second channel is the fifth token.
    np.testing.assert_allclose(values[:, 0, 0, 1], tokens[:, 4] / 127.5 - 1, atol=1e-6)
    line = PixelCodec(11, -5.0, 5.0)
    np.testing.assert_allclose(line.encode(np.array([[0], [5], [10]]))[:, 0], [-5, 0, 5])
    np.testing.assert_array_equal(line.decode(jnp.array([[-9.0], [0.4], [99.0]]))[:, 0], [0, 5, 10])
    np.testing.assert_allclose(line.rounded(jnp.array([[0.4]])), 0.0)


@pytest.mark.parametrize("kind", ["epsilon", "clean", "velocity"])
def test_the_loss_of_the_exact_target_is_zero(kind):
    """The network computes the target from the clean data; examples of weight 0 do not count."""
    process, clean = GaussianDiffusion(CosineSignal(), kind), CODEC.encode(BATCH["tokens"])

    def exact(params, noisy, time):
        alpha, sigma = (level(time)[:, None, None, None] for level in (process.schedule.alpha, process.schedule.sigma))
        noise = (noisy - alpha * clean) / sigma
        target = {"epsilon": noise, "clean": clean, "velocity": alpha * noise - sigma * clean}[kind]
        return target + params[:, None, None, None]

    batch = BATCH | {"weights": np.where(np.arange(SIZE) < 900, 1.0, 0)[:, None] * BATCH["weights"]}
    denoising = partial(Denoising, process=process, codec=CODEC, null_id=NULL_ID, minimum_time=0.1)
    for offset, expected in ((0.0, 0.0), (0.5, 0.25)):
        offsets = jnp.where(jnp.arange(SIZE) < 900, offset, 1e3)
        total, metrics, _ = run(denoising, exact, True, offsets, batch, NOISE)
        assert metrics["loss"][1] == 900 and float(total / 900) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_prompts_are_dropped_in_training_only():
    denoising = partial(Denoising, process=GaussianDiffusion(CosineSignal()), codec=CODEC, null_id=NULL_ID)
    prompt, plain = (np.asarray(run(denoising, zero, train, 0.0, BATCH, NOISE)[2][2]) for train in (True, False))
    dropped = np.all(prompt == NULL_ID, axis=1)
    assert 0.06 < dropped.mean() < 0.14  # the default probability is 0.1
    np.testing.assert_array_equal(prompt[~dropped], BATCH["prompt"][~dropped])
    np.testing.assert_array_equal(plain, BATCH["prompt"])


def test_times_are_steps_of_a_chain_or_uniform_in_the_interval():
    chain, line = (
        np.sort(Denoising(zero, GaussianDiffusion(schedule), CODEC, minimum_time=0.2).times(NOISE.uniform))
        for schedule in (ScaledLinear(), CosineSignal())
    )
    np.testing.assert_allclose(chain * 1000, np.arange(1, 1001), atol=1e-3)
    assert 0.2 <= line[0] < 0.21 and 0.99 < line[-1] < 1


def test_scores_are_regressed_on_noisy_images():
    def constant(params, image, time):
        return jnp.full(len(image), params)

    regression = partial(ScoreRegression, codec=CODEC, noise=0.4)
    clean = CODEC.encode(BATCH["tokens"])
    total, _, (image, *_) = run(regression, constant, True, 0.3, BATCH, NOISE)
    assert float(total) == pytest.approx(np.sum((0.3 - BATCH["score"]) ** 2), rel=1e-5)
    deviation = np.asarray(image - clean).reshape(SIZE, -1).std(axis=1)
    # Uniform on [0, 0.4]: the mean is 0.2.
    assert 0.17 < deviation.mean() < 0.22 and deviation.min() < 0.05 and deviation.max() < 0.7
    np.testing.assert_allclose(run(regression, constant, False, 0.3, BATCH, NOISE)[2][0], clean, atol=1e-6)


def test_data_without_scores_are_rejected():
    with refused(r"objective.name: reward needs a source with scores"):
        ScoreRegression(zero, CODEC)(0.0, {name: BATCH[name] for name in ("tokens", "weights")}, NOISE)
