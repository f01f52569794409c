"""Methods of sampling from prompts with a small network: limits, costs, and increased rewards."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.recipes.glyphs import prompted
from diffusion.codecs.subtokens import PixelCodec
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import example_keys
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.schedules.gaussian import ScaledLinear
from experiments.families.base import System
from experiments.families.guidance import Cost, method

WORDS, IMAGE, PROMPTS, IMAGES = 5, (2, 2, 3), 3, 4


class Small(nn.Module):
    """A noise prediction from the state and the mean of the word vectors of a prompt."""

    @property
    def null_id(self):
        return WORDS

    def setup(self):
        self.table = nn.Embed(WORDS + 1, 3)
        self.mix = nn.Dense(3)

    def embed(self, prompt):
        return self.table(prompt)

    def __call__(self, x, time, cond):
        context = self.embed(cond) if jnp.issubdtype(cond.dtype, jnp.integer) else cond
        return jnp.tanh(self.mix(x) + context.mean(axis=1)[:, None, None])


NET = Small()
PARAMS = NET.init(jax.random.key(0), jnp.zeros((1, *IMAGE)), jnp.zeros(1), jnp.zeros((1, 8), jnp.int32))["params"]
PROMPT_IDS = jnp.asarray(np.random.default_rng(0).integers(0, WORDS, (PROMPTS, 8)), jnp.int32)


def denoiser(params, x, time, cond=None, memory=None, *, keys=None):
    return NET.apply({"params": params}, x, time, cond)


SYSTEM = System(
    net=NET,
    process=GaussianDiffusion(ScaledLinear()),
    denoiser=denoiser,
    init=lambda key: PARAMS,
    length=12,
    codec=PixelCodec(256, image=IMAGE),
)


def reward(reward_params, clean, cond):
    """Return the mean brightness."""
    return jnp.mean(clean, axis=(1, 2, 3))


def method_of(kind, **fields):
    config = prompted("lidar_shapes", "debug")
    config.sample.steps = 10
    config.sample.gaussian.update(method=kind, images=IMAGES)
    for key, value in fields.items():
        section, _, name = key.rpartition("__")
        (config.sample.gaussian[section] if section else config.sample.gaussian)[name] = value
    return method(config, SYSTEM, reward)


def keys_of(purpose, draws, prompts=PROMPTS):
    slot_keys = example_keys(jax.random.key(purpose), jnp.arange(prompts))
    return jax.vmap(lambda key: example_keys(key, jnp.arange(draws)))(slot_keys)


def draw_images(method, prompts=PROMPTS):
    cond, ahead = PROMPT_IDS[:prompts], None
    if method.lookahead:
        samples = method.lookahead(PARAMS, keys_of(1, method.particles, prompts), cond)
        worth = reward(None, samples.reshape(-1, *IMAGE), None).reshape(samples.shape[:2])
        ahead = Lookahead(samples.reshape(*samples.shape[:2], -1), worth)
    forces = {name: jnp.float32(value) for name, value in method.strengths.items()}
    return np.asarray(method.draw(PARAMS, {}, keys_of(0, method.draws, prompts), cond, ahead, forces))


@pytest.fixture(scope="module")
def plain():
    return draw_images(method_of("plain"))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("lidar", {"lookahead__particles": 1}),
        ("lidar", {"lookahead__scale": 0.0}),
        ("gradient", {"gradient__scale": 0.0}),
        ("condition", {"condition__rate": 0.0}),
    ],
    ids=["one particle", "no scale", "no gradient", "no ascent"],
)
def test_methods_of_zero_strength_are_unguided_sampling(plain, kind, fields):
    """LiDAR bitwise, the others up to the rounding of programs with a gradient."""
    result = draw_images(method_of(kind, **fields))
    if kind == "lidar":
        np.testing.assert_array_equal(result, plain)
    np.testing.assert_allclose(result, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("best_of", {"best_of": 4}),
        ("gradient", {"gradient__scale": 3.0}),
        ("condition", {"condition__rate": 0.5, "condition__period": 1}),
        ("steering", {"steering__strength": 10.0}),
        ("lidar", {"lookahead__particles": 20, "lookahead__scale": 3.0}),
        ("lidar_steering", {"lookahead__particles": 20, "lookahead__scale": 3.0}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_method_raises_the_reward(plain, kind, fields):
    assert draw_images(method_of(kind, **fields)).mean() > plain.mean() + 0.02


def test_the_best_are_among_what_was_drawn_and_come_in_order():
    two = method_of("best_of", best_of=2)
    assert two.draws == 2 * IMAGES
    brightness = draw_images(two).mean(axis=(2, 3, 4))
    assert np.all(np.diff(brightness, axis=1) <= 0)


def test_images_do_not_depend_on_other_prompts(plain):
    np.testing.assert_allclose(draw_images(method_of("plain"), 2), plain[:2], atol=1e-5)
    guided = method_of("lidar", lookahead__particles=6, lookahead__scale=3.0)
    np.testing.assert_allclose(draw_images(guided, 2), draw_images(guided)[:2], atol=1e-4)


def test_prompts_have_an_effect_and_classifier_free_guidance_doubles_the_cost(plain):
    alone = method_of("plain", guidance=1.0)
    assert (method_of("plain").cost, alone.cost) == (Cost(80, 0, 0), Cost(40, 0, 0))
    assert np.abs(draw_images(alone) - plain).max() > 1e-3


def test_sweep_over_strengths_compiles_once():
    """Strengths are inputs of the program."""
    texts = set()
    for scale in (1.0, 12.5):
        lidar = method_of("lidar", lookahead__scale=scale, lookahead__strength=scale * 100)
        ahead = Lookahead(jnp.zeros((PROMPTS, 8, 12)), jnp.zeros((PROMPTS, 8)))
        forces = {name: jnp.float32(value) for name, value in lidar.strengths.items()}
        assert forces["scale"] == scale
        texts.add(jax.jit(lidar.draw).lower(PARAMS, {}, keys_of(0, lidar.draws), PROMPT_IDS, ahead, forces).as_text())
    assert len(texts) == 1


def test_costs_by_hand():
    """10 steps, 4 images, two evaluations per prediction; FK steering resamples at steps 2, 4, 6, 8 and 9."""
    costs = {
        "best_of": (method_of("best_of", best_of=3), Cost(240, 0, 12)),
        "gradient": (method_of("gradient"), Cost(80, 80, 40)),
        "every second": (method_of("gradient", gradient__period=2), Cost(80, 40, 20)),
        "condition": (method_of("condition", condition__period=2), Cost(80 + 40, 20, 20)),
        "steering": (method_of("steering"), Cost(80, 0, 20)),
        "lidar": (method_of("lidar", lookahead__particles=7, lookahead__steps=3), Cost(80 + 42, 0, 7)),
        "both": (method_of("lidar_steering", lookahead__particles=7, lookahead__steps=3), Cost(80 + 42, 0, 7 + 20)),
    }
    for name, (one, expected) in costs.items():
        assert one.cost == expected, name
