"""Names of a config and their objects: every known name works."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.rng import draws
from experiments import families
from experiments.families import masked, masked_sampling
from tests.checks import refused
from tests.languages import denoiser_of
from tests.small_configs import CAUSAL, small_config
from tests.weights import keys_of, randomized

VOCABULARY, LENGTH, BATCH = 13, 8, 4


def config_of(**overrides):
    return small_config(**dict(data__length=LENGTH, train__batch=BATCH, sample__steps=3) | overrides)


@pytest.fixture(scope="module")
def params():
    """Return params for all networks of this size."""
    return randomized(families.system(config_of(), VOCABULARY).init, 0.2)


def tokens_of(size):
    return np.random.default_rng(0).integers(0, VOCABULARY, (size, LENGTH), dtype=np.int32)


@pytest.mark.parametrize("name", masked.SCHEDULES)
def test_every_schedule_has_a_loss_and_a_grid(name):
    """Uniform predictions have log K nats per token on average over times and masks."""
    config = config_of(**{"process.schedule": name, "sample.policy": "first_hitting"})
    system = families.system(config, VOCABULARY)
    uniform = denoiser_of(lambda noisy, time: jnp.zeros((*noisy.shape, VOCABULARY + 1)))
    objective = families.objective(config, dataclasses.replace(system, denoiser=uniform))

    @jax.jit
    def loss(batch, noise):
        total, metrics = objective(None, batch, noise)
        return total / metrics["loss"][1]

    batch = {"tokens": tokens_of(512), "weights": np.ones((512, LENGTH), np.float32)}
    assert loss(batch, draws(jax.random.key(0), "train", 0, 512)) == pytest.approx(np.log(VOCABULARY), rel=0.3)
    assert callable(families.sampler(config, system))


def test_longer_texts_are_sampled_in_windows(params):
    """There are three windows of 8 tokens in 16, with a stride of 4; each window reads the previous 4 tokens."""
    config = config_of(**{"sample.length": 2 * LENGTH})
    program = jax.jit(families.sampler(config, families.system(config, VOCABULARY)))

    def sample(position, values):
        prompt = np.full((2, 2 * LENGTH), VOCABULARY, np.int32)
        prompt[:, position] = values
        return program(params, keys_of(2), prompt)

    samples = sample(12, 7)
    assert samples.tokens.shape == (2, 2 * LENGTH)
    assert (samples.tokens < VOCABULARY).all() and (samples.tokens[:, 12] == 7).all()
    assert (samples.evaluations == 3 * (3 + 1)).all()
    first, window = np.asarray(sample(slice(0), 0).tokens), slice(0, LENGTH)
    np.testing.assert_array_equal(sample(window, first[:, :LENGTH]).tokens, first)
    assert (sample(window, 0).tokens[:, LENGTH:] != first[:, LENGTH:]).any()


@pytest.mark.parametrize(
    "changes", [{}, {"data.length": 2 * LENGTH, "process.name": "blocks", "process.block": LENGTH}, {"codec.digits": 2}]
)
def test_samplers_of_other_numbers_of_steps_are_one_program(changes):
    texts = []
    for steps in (3, 5):
        config = config_of(**changes | {"sample.steps": steps, "sample.length": 2 * LENGTH})
        system = families.system(config, VOCABULARY)
        inputs = jax.eval_shape(system.init, jax.random.key(0)), keys_of(2), np.full((2, 2 * LENGTH), VOCABULARY)
        program = jax.jit(lambda sample, *inputs: sample(*inputs)).lower(families.sampler(config, system), *inputs)
        texts.append(program.as_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("model", [{}, {name.replace(".", "__"): value for name, value in CAUSAL.items()}])
def test_shorter_texts_are_those_of_a_shorter_length(model):
    """The grid of 8 of 16 tokens is that of a length of 8, and so are the shapes."""
    fewer, short = (small_config(**model, data__length=length, sample__length=8) for length in (16, 8))
    shapes = []
    for config in (fewer, short):
        system = families.system(config, 13)
        (call,) = families.family_of(config).calls(config, system)
        params = jax.eval_shape(system.init, jax.random.key(0))
        shapes.append((call.turns, jax.eval_shape(call.function, params, *call.rows)))
    assert shapes[0] == shapes[1] and shapes[0][1].tokens.shape == (fewer.sample.batch, 8)
    if not model:
        grids = [masked_sampling.sampling_grid(each, system.masking, 4, 1e-5) for each in (fewer, short)]
        jax.tree.map(np.testing.assert_array_equal, *grids)
        with refused("sample.length: model.net=unet writes data.length = 16 tokens or more"):
            masked_sampling.window_length(small_config(model__net="unet", data__length=16, sample__length=8))


@pytest.mark.parametrize("conditioned", [False, True])
def test_logits_depend_on_time_exactly_with_time_conditioning(params, conditioned):
    system = families.system(config_of(**{"model.time_conditioning": conditioned}), VOCABULARY)
    tokens = tokens_of(BATCH)
    denoiser = jax.jit(system.denoiser)
    times = np.array([[0.1] * BATCH, [0.9] * BATCH, [0.1, 0.9, 0.1, 0.9]], np.float32)
    first, last, mixed = (np.asarray(denoiser(params, tokens, each)) for each in times)
    assert (np.abs(first - last).max() > 1e-3) == conditioned
    np.testing.assert_allclose(mixed[:2], np.stack([first[0], last[1]]), atol=1e-5)


def test_padding_has_a_separate_class():
    config = config_of(**{"data.packing": "padded"})
    assert families.system(config, VOCABULARY).classes == VOCABULARY + 2
    assert families.system(config_of(), VOCABULARY).classes == VOCABULARY + 1
    assert families.system(config, VOCABULARY).process.mask_id == VOCABULARY
