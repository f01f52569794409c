"""Methods on text-to-image models: their costs, what they change, and how many images they keep; nothing is decoded."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import defaults
from diffusion.rng import example_keys
from diffusion.sampling.gaussian.lidar import Lookahead
from experiments import families
from experiments.families import text_to_image
from experiments.families.guidance import guided_sampler
from experiments.families.guided_methods import METHODS
from experiments.tasks.prompt_drawing import Drawing
from tests.checkpoints import relative
from tests.checks import refused
from tests.weights import random_like, randomized

PROMPTS, IMAGES = 2, 3


def config_of(backbone="tiny", method="plain", **fields):
    """Return the config of a method; a__b is field b of section a of `sample.gaussian`."""
    config = defaults("lidar_geneval", "debug")
    config.model.update(net="text_to_image", dtype="float32")
    config.process.schedule = "scaled_linear"
    config.text_to_image.update(backbone=backbone, random=True)
    config.sample.steps = fields.pop("steps", 100)
    config.sample.gaussian.update(method=method, guidance=7.5, images=IMAGES)
    config.sample.gaussian.lookahead.particles = 5
    config.sample.gaussian.update_from_flattened_dict({key.replace("__", "."): each for key, each in fields.items()})
    return config


def brightness(params, clean, prompted):
    """Return a stand-in for rewards, of latents."""
    return jnp.sum(clean, axis=(1, 2, 3)) / 50


def sampler_of(config, reward=brightness, summary=None):
    return guided_sampler(config, families.system(config, 1), reward, summary)


@cache
def inputs(backbone):
    """Return random parameters and prompts."""
    config = config_of(backbone)
    prompted = random_like(text_to_image.prompted_like(config, PROMPTS)._replace(rewards={}), 1.0)
    return randomized(families.system(config, 1).init, 0.1), prompted


def slots(count):
    root = example_keys(jax.random.key(0), jnp.arange(PROMPTS))
    return jax.vmap(lambda key: example_keys(key, jnp.arange(count)))(root)


def strengths(sampler):
    return {name: jnp.float32(value) for name, value in sampler.strengths.items()}


@pytest.mark.parametrize(
    ("fields", "evaluations", "backward", "rewards"),
    [
        # Two evaluations for each of 100 steps and 4 images.
        (dict(), 800, 0, 0),
        (dict(guidance=1.0), 400, 0, 0),
        (dict(method="best_of", images=1, best_of=16), 3200, 0, 16),
        # 50 samples in 5 steps under guidance, 100 in 4 steps without, or in one step.
        (dict(method="lidar", lookahead__particles=50), 800 + 50 * 5 * 2, 0, 50),
        (dict(method="lidar", lookahead__particles=100, lookahead__steps=4, lookahead__guidance=1.0), 1200, 0, 100),
        (
            dict(method="lidar", lookahead__particles=100, lookahead__steps=1, lookahead__guidance=1.0)
            | dict(lookahead__path="indices", lookahead__indices=(399,)),
            900,
            0,
            100,
        ),
        (dict(method="lidar_best_of", images=1, best_of=4, lookahead__particles=50), 800 + 500, 0, 50 + 4),
        # Universal guidance differentiates both evaluations of every step.
        (dict(method="gradient", gradient__period=1), 800, 800, 400),
        # DATE evaluates both once more in every second step, and differentiates the conditional one.
        (dict(method="condition", condition__period=2), 800 + 400, 200, 200),
        # Particles are rewarded after 20, 40, 60, 80 and 100 % of the steps.
        (dict(method="steering"), 800, 0, 5 * 4),
        (dict(method="steering_best_of", images=1, best_of=4), 800, 0, 5 * 4 + 4),
        (dict(method="lidar_steering", lookahead__particles=50), 1300, 0, 50 + 5 * 4),
        (dict(method="safe_denoiser", lookahead__particles=50), 1300, 0, 50),
    ],
)
def test_costs_of_a_prompt(fields, evaluations, backward, rewards):
    assert sampler_of(config_of(**dict(images=4) | fields)).cost == (evaluations, backward, rewards)


def test_guides_of_lookahead_samples_act_in_the_first_four_fifths():
    for steps in (100, 50):
        assert sampler_of(config_of(method="lidar", steps=steps)).taken == 0.8


@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_as_many_images_as_are_wanted(method):
    config = config_of(method=method, steps=5, best_of=2, negatives__count=3)
    sampler, (params, prompted) = sampler_of(config), inputs("tiny")
    assert sampler.draws == IMAGES * (2 if method.endswith("best_of") else 1)
    ahead = None
    if sampler.lookahead:
        found = jax.eval_shape(sampler.lookahead, params, slots(sampler.particles), prompted)
        assert found.shape == (PROMPTS, 5, 8, 8, 4)
        ahead = Lookahead(jnp.zeros((PROMPTS, 5, 256)), jnp.zeros((PROMPTS, 5)))
    images = jax.eval_shape(sampler.draw, params, {}, slots(sampler.draws), prompted, ahead, strengths(sampler))
    assert images.shape == (PROMPTS, IMAGES, 8, 8, 4)


def test_samples_that_are_drawn_in_chunks_are_the_same():
    """Chunks of two of three samples fill the last chunk, those of one compile another program."""
    params, prompted = inputs("tiny")
    drawn = {}
    for size in (0, 1, 2):
        sampler = sampler_of(config_of(steps=3, chunk=size))
        draw = jax.jit(lambda *inputs, sampler=sampler: sampler.draw(*inputs, None, {}))
        drawn[size] = draw(params, {}, slots(IMAGES), prompted)
    assert relative(drawn[1], drawn[0]) < 1e-5 and relative(drawn[2], drawn[0]) < 1e-5
    assert len(np.unique(np.asarray(drawn[0])[..., 0, 0, 0])) == PROMPTS * IMAGES


def test_guidance_of_lookahead_samples_is_that_of_the_sampler_unless_given():
    params, prompted = inputs("tiny")

    def program(**fields):
        sampler = sampler_of(config_of(method="lidar", **fields))
        return str(jax.make_jaxpr(sampler.lookahead)(params, slots(2), prompted))

    own, given = program(guidance=7.5), program(guidance=3.0, lookahead__guidance=7.5)
    assert own == given and own != program(guidance=3.0)
    assert program(guidance=1.0) == program(lookahead__guidance=1.0)


def test_date_moves_the_context_of_sdxl_alone():
    config = config_of("tiny_xl", "condition", steps=3, condition__period=2, condition__rate=2.0, images=1)
    params, prompted = inputs("tiny_xl")
    sampler = sampler_of(config, summary=lambda x, clean, carry, row: carry)
    draw = jax.jit(lambda *inputs: sampler.draw(*inputs, None, {"rate": jnp.float32(2.0)})[1][1])
    shown = draw(params, {}, slots(1), prompted)
    before, after = prompted.text, jax.tree.map(np.asarray, shown)
    steps = np.diff(np.concatenate([before.context[None], after.context]), axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=(2, 3)), [[2, 2], [0, 0], [2, 2]], rtol=1e-4)
    for leaf, known in zip(after.added, before.added, strict=True):
        np.testing.assert_array_equal(leaf, np.broadcast_to(known, leaf.shape))


def mixed(rewards, mix, **values):
    config = config_of()
    config.text_to_image.update(rewards=rewards, mix=mix)
    # `mixed` reads nothing of a drawing but its config.
    return Drawing.mixed(Only(config), {name: np.array(each, np.float32) for name, each in values.items()})


class Only:
    """A drawing that has a config alone."""

    def __init__(self, config):
        self.run = type("Run", (), {"config": config})


def test_several_rewards_are_mixed_as_scores_and_one_is_raw():
    one, other = [1.0, 2.0, 3.0], [10.0, 10.0, 40.0]
    both = dict(image_reward=one, clip=other)
    np.testing.assert_array_equal(mixed(("image_reward",), (1.0,), image_reward=one), one)
    np.testing.assert_array_equal(mixed(("image_reward",), (0.5,), image_reward=one), np.array(one) / 2)
    np.testing.assert_array_equal(mixed(("image_reward", "clip"), (0.0, 1.0), **both), other)
    # Means 2 and 20, standard deviations sqrt(2 / 3) and sqrt(200).
    expected = 0.75 * np.array([-1, 0, 1]) / np.sqrt(2 / 3) + 0.25 * np.array([-10, -10, 20]) / np.sqrt(200)
    np.testing.assert_allclose(mixed(("image_reward", "clip"), (0.75, 0.25), **both), expected, rtol=1e-6)
    constant = mixed(("image_reward", "clip"), (0.5, 0.5), image_reward=one, clip=[3.0, 3.0, 3.0])
    np.testing.assert_allclose(constant, 0.5 * np.array([-1, 0, 1]) / np.sqrt(2 / 3), rtol=1e-6)


def test_the_mixed_reward_of_latents_is_the_weighted_sum_of_its_parts():
    """Rewards that guide or steer by themselves are not z-scores: there is no set of samples."""
    config = config_of()
    config.text_to_image.update(measures=(), rewards=("clip", "hps"))
    params = jax.jit(text_to_image.reward_init(config))(jax.random.key(0))
    latents = jax.random.normal(jax.random.key(1), (4, 8, 8, 4))
    prompted = random_like(text_to_image.prompted_like(config, PROMPTS), 1.0)

    def values(latents):
        found = []
        for mix in ((1.0, 0.0), (0.0, 1.0), (0.3, 0.7)):
            config.text_to_image.mix = mix
            found.append(text_to_image.latent_reward(config)(params, latents, prompted))
        return jnp.stack(found)

    clip, hps, both = jax.jit(values)(latents)
    np.testing.assert_allclose(both, 0.3 * clip + 0.7 * hps, rtol=1e-5, atol=1e-6)
    assert np.std(clip) > 1e-3 and np.std(hps) > 1e-3


def test_fields_that_do_not_fit_are_named():
    with refused("sample.steps: is 5, but 1 indices are given; set it to 1"):
        sampler_of(config_of(method="lidar", lookahead__path="indices", lookahead__indices=(399,)))
    with refused("indices: must decrease within 999 .. 0, not \\(399, 499\\)"):
        sampler_of(
            config_of(method="lidar", lookahead__steps=2, lookahead__path="indices", lookahead__indices=(399, 499))
        )
    with refused("sample.gaussian.lookahead.solver: unknown 'heun'"):
        sampler_of(config_of(method="lidar", lookahead__solver="heun"))
