"""Names of a config and their objects: every known name works, and errors for unknown names list the known ones."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.rng import draws, example_keys
from diffusion.train.state import new_state
from diffusion.train.step import make_step
from experiments import families
from experiments.families import masked, masked_sampling
from experiments.plan import resolve

VOCABULARY, LENGTH, BATCH = 13, 8, 4
CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}


def config_of(**overrides):
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    config.data.length, config.train.batch, config.sample.steps = LENGTH, BATCH, 3
    return resolve(config, overrides, 0)


def perturbed(params, scale=0.3):
    """Return params with noise, because logits of the initial zero head are constant."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    return tree.unflatten([x + scale * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)])


@pytest.fixture(scope="module")
def params():
    """Return params for all networks of this size."""
    system = families.system(config_of(), VOCABULARY)
    return perturbed(jax.jit(system.init)(jax.random.key(0)))


def batch_of(length=LENGTH, size=BATCH, vocabulary=VOCABULARY):
    tokens = np.random.default_rng(0).integers(0, vocabulary, (size, length), dtype=np.int32)
    labels = np.zeros(size, np.int32)
    return {"tokens": tokens, "weights": np.ones((size, length), np.float32), "label": labels}


def two_steps(config, vocabulary=VOCABULARY, size=None):
    """Take two training steps; returns parameters before and after, and the losses in nats per token."""
    system = families.system(config, vocabulary)
    settings = families.settings(config)
    optimizer = families.optimizer(config)
    step = jax.jit(
        make_step(families.objective(config, system), optimizer, decay=settings.ema, accumulate=settings.accumulate)
    )
    start = state = jax.jit(lambda key: new_state(system.init(key), optimizer))(jax.random.key(0))
    batch, losses = batch_of(config.data.length, size or config.train.batch, vocabulary), []
    for _ in range(2):
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert int(state.step) == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    return start.params, state.params, losses


@pytest.mark.parametrize("name", masked.SCHEDULES)
def test_every_schedule_has_a_loss_and_a_grid(name):
    """Uniform predictions have log K nats per token on average over times and masks."""
    config = config_of(**{"process.schedule": name, "sample.policy": "first_hitting"})
    system = families.system(config, VOCABULARY)

    @jax.jit
    def loss(batch, noise):
        total, metrics = families.objective(config, dataclasses.replace(system, denoiser=uniform_denoiser))(
            None, batch, noise
        )
        return total / metrics["loss"][1]

    batch, noise = batch_of(size=512), draws(jax.random.key(0), "train", 0, 512)
    assert loss(batch, noise) == pytest.approx(np.log(VOCABULARY), rel=0.3)
    assert callable(families.sampler(config, system))


def uniform_denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
    return jnp.zeros((*noisy.shape, VOCABULARY + 1))


# The loss of an error predictor is binary, and has separate tests.
TRAINED = ["autoregressive", *(name for name in masked.OBJECTIVES if name != "errors")]


@pytest.mark.parametrize("name", TRAINED)
def test_every_objective_trains(name):
    fields = CAUSAL if name == "autoregressive" else {"objective.name": name}
    _, _, losses = two_steps(config_of(**fields, **{"optimizer.learning_rate": 0.03}), size=64)
    exact = name == "autoregressive"
    assert losses[0] == pytest.approx(np.log(VOCABULARY), rel=1e-5 if exact else 0.5)
    assert not exact or losses[1] < losses[0]


def sample(config, params, prompt, seed=0):
    system = families.system(config, VOCABULARY)
    keys = example_keys(jax.random.key(seed), jnp.arange(len(prompt)))
    return jax.jit(families.sampler(config, system))(params, keys, prompt)


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
    causal_params = perturbed(jax.jit(families.system(config, VOCABULARY).init)(jax.random.key(0)))
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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sample.length": 2 * LENGTH, "sample.stride": 3}, r"sample\.stride"),
        ({"sample.length": 2 * LENGTH} | CAUSAL, r"sample\.length: an autoregressive model writes data\.length = 8"),
        ({"sample.policy": "x"}, r"sample\.policy: unknown 'x'; known: ancestral, confidence, confidence_star, first_"),
        ({"sample.precision": "x"}, r"sample\.precision: unknown 'x'; known: exact, mdlm_float32"),
        ({"sample.nucleus_rule": "x"}, r"sample\.nucleus_rule: unknown 'x'; known: inclusive, off, standard"),
        ({"sample.final": "x"}, r"sample\.final: unknown 'x'; known: argmax, draw, none"),
        ({"sample.steps": 0}, r"sample\.steps: must be at least 1, not 0"),
        ({"sample.temperature": -1.0}, r"sample\.temperature"),
        ({"sample.nucleus": 0.0}, r"sample\.nucleus"),
        ({"sample.corrector": (1.0,)}, r"sample\.corrector: must be \(scale, power\)"),
        ({"sample.corrector": (1.0, 1.0), "sample.policy": "first_hitting"}, r"sample\.corrector: .*first_hitting"),
    ],
)
def test_errors_for_samplers_name_the_field(params, overrides, message):
    config = config_of(**overrides)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: sample(config, params, blank(config.sample.length or LENGTH)))


@pytest.mark.parametrize(
    ("make", "overrides", "message"),
    [
        (
            families.objective,
            {"objective.name": "x"},
            r"objective\.name: unknown 'x'; known: .*nelbo",
        ),
        (families.objective, {"objective.name": "autoregressive"}, r"objective\.name: .*model\.causal=True"),
        (families.objective, {"model.causal": True}, r"objective\.name: .*model\.causal=True"),
        (None, {"process.schedule": "x"}, r"process\.schedule: unknown 'x'; known: cosine, geometric, linear, log_lin"),
        (
            families.optimizer,
            {"optimizer.decay": "x"},
            r"optimizer\.decay: unknown 'x'; known: constant, cosine",
        ),
        (families.settings, {"train.steps": 0}, r"train\.steps: must be positive, not 0"),
        (families.settings, {"train.accumulate": -1}, r"train\.accumulate: must be positive, not -1"),
    ],
)
def test_errors_for_configs_name_the_field(make, overrides, message):
    config = config_of(**overrides)
    with pytest.raises(ValueError, match=message) as caught:
        system = families.system(config, VOCABULARY)
        make(config, system) if make is families.objective else make(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("conditioned", [False, True])
def test_logits_depend_on_time_exactly_with_time_conditioning(params, conditioned):
    system = families.system(config_of(**{"model.time_conditioning": conditioned}), VOCABULARY)
    tokens = batch_of()["tokens"]
    at = [jax.jit(system.denoiser)(params, tokens, jnp.full(BATCH, time)) for time in (0.1, 0.9)]
    assert (np.abs(at[0] - at[1]).max() > 1e-3) == conditioned
    mixed = jax.jit(system.denoiser)(params, tokens, jnp.array([0.1, 0.9, 0.1, 0.9]))
    np.testing.assert_allclose(mixed[:2], jnp.stack([at[0][0], at[1][1]]), atol=1e-5)


def test_padding_has_a_separate_class():
    config = config_of(**{"data.packing": "padded"})
    assert families.system(config, VOCABULARY).classes == VOCABULARY + 2
    assert families.system(config_of(), VOCABULARY).classes == VOCABULARY + 1
    assert families.system(config, VOCABULARY).process.mask_id == VOCABULARY
