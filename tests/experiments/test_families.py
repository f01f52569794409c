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
from tests.small_configs import small_config
from tests.weights import keys_of, randomized

VOCABULARY, LENGTH, BATCH = 13, 8, 4
CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}


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


def sample(config, params, prompt, seed=0):
    system = families.system(config, VOCABULARY)
    return jax.jit(families.sampler(config, system))(params, keys_of(len(prompt), seed), prompt)


def blank(length=LENGTH):
    return jnp.full((2, length), VOCABULARY, jnp.int32)


@pytest.mark.parametrize("precision", ["exact", "mdlm_float32"])
@pytest.mark.parametrize("name", masked_sampling.POLICIES)
def test_every_policy_samples(params, name, precision):
    config = config_of(**{"sample.policy": name, "sample.precision": precision, "sample.noise": 0.5})
    if name == "gstar":
        config.predictor.kind, config.objective.name = "block", "errors"
        params = families.system(config, VOCABULARY).errors.extend(jax.random.key(7), params)
    prompt = blank().at[:, 3].set(7)
    samples = sample(config, params, prompt)
    assert samples.tokens.shape == (2, LENGTH) and (samples.tokens[:, 3] == 7).all()
    assert (0 <= samples.tokens).all() and (samples.tokens < VOCABULARY).all()
    # First hitting has one step per position and no final step.
    assert (samples.evaluations == (LENGTH if name == "first_hitting" else 3 + 1)).all()
    assert (samples.tokens[0] != samples.tokens[1]).any()


def test_causal_config_samples_from_left_to_right():
    config = config_of(**CAUSAL)
    causal_params = randomized(families.system(config, VOCABULARY).init, 0.3)
    samples = sample(config, causal_params, blank().at[:, 0].set(7))
    assert (samples.evaluations == LENGTH).all() and (samples.tokens[:, 0] == 7).all()
    assert (samples.tokens < VOCABULARY).all()


def test_longer_texts_are_sampled_in_windows(params):
    """There are three windows of 8 tokens in 16, with a stride of 4; each window reads the previous 4 tokens."""
    config = config_of(**{"sample.length": 2 * LENGTH})
    samples = sample(config, params, blank(2 * LENGTH).at[:, 12].set(7))
    assert samples.tokens.shape == (2, 2 * LENGTH)
    assert (samples.tokens < VOCABULARY).all() and (samples.tokens[:, 12] == 7).all()
    assert (samples.evaluations == 3 * (3 + 1)).all()
    first = sample(config, params, blank(2 * LENGTH)).tokens
    again = sample(config, params, blank(2 * LENGTH).at[:, :LENGTH].set(first[:, :LENGTH])).tokens
    np.testing.assert_array_equal(again, first)
    other = sample(config, params, blank(2 * LENGTH).at[:, :LENGTH].set(0)).tokens
    assert (other[:, LENGTH:] != first[:, LENGTH:]).any()
    with refused(r"sample\.stride: 3 must divide"):
        sample(config_of(**{"sample.length": 2 * LENGTH, "sample.stride": 3}), params, blank(2 * LENGTH))


@pytest.mark.parametrize("conditioned", [False, True])
def test_logits_depend_on_time_exactly_with_time_conditioning(params, conditioned):
    system = families.system(config_of(**{"model.time_conditioning": conditioned}), VOCABULARY)
    tokens = tokens_of(BATCH)
    at = [jax.jit(system.denoiser)(params, tokens, jnp.full(BATCH, time)) for time in (0.1, 0.9)]
    assert (np.abs(at[0] - at[1]).max() > 1e-3) == conditioned
    mixed = jax.jit(system.denoiser)(params, tokens, jnp.array([0.1, 0.9, 0.1, 0.9]))
    np.testing.assert_allclose(mixed[:2], jnp.stack([at[0][0], at[1][1]]), atol=1e-5)


def test_padding_has_a_separate_class():
    config = config_of(**{"data.packing": "padded"})
    assert families.system(config, VOCABULARY).classes == VOCABULARY + 2
    assert families.system(config_of(), VOCABULARY).classes == VOCABULARY + 1
    assert families.system(config, VOCABULARY).process.mask_id == VOCABULARY
