"""Methods of sampling from prompts with a small network: limits, costs, and increased rewards."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.recipes.glyphs import prompted
from diffusion.codecs.subtokens import PixelCodec
from diffusion.nets.sd.unet import TextConditioning
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import example_keys
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.schedules.gaussian import ScaledLinear
from experiments.families.base import System
from experiments.families.guidance import Cost, guided_sampler
from tests.weights import randomized

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
        context = cond.context if isinstance(cond, TextConditioning) else self.embed(cond)
        return jnp.tanh(self.mix(x) + context.mean(axis=1)[:, None, None])


NET = Small()
PARAMS = randomized(
    lambda key: NET.init(key, jnp.zeros((1, *IMAGE)), jnp.zeros(1), jnp.zeros((1, 8), jnp.int32))["params"], 0.5
)
PROMPT_IDS = np.random.default_rng(0).integers(0, WORDS, (PROMPTS, 8)).astype(np.int32)


def denoiser(params, x, time, cond=None, memory=None, *, keys=None):
    return NET.apply({"params": params}, x, time, cond)


def condition(params, prompts):
    null = jnp.full_like(prompts[:1], NET.null_id)
    text, null = (NET.apply({"params": params}, each, method="embed") for each in (prompts, null))
    return TextConditioning(text), TextConditioning(null[0])


SYSTEM = System(
    net=NET,
    process=GaussianDiffusion(ScaledLinear()),
    denoiser=denoiser,
    init=lambda key: PARAMS,
    length=12,
    codec=PixelCodec(256, image=IMAGE),
    condition=condition,
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
    return guided_sampler(config, SYSTEM, reward)


def keys_of(purpose, draws):
    slot_keys = example_keys(jax.random.key(purpose), jnp.arange(PROMPTS))
    return jax.vmap(lambda key: example_keys(key, jnp.arange(draws)))(slot_keys)


def draw_images(kind, **fields):
    sampler, ahead = method_of(kind, **fields), None
    if sampler.lookahead:
        samples = jax.jit(sampler.lookahead)(PARAMS, keys_of(1, sampler.particles), PROMPT_IDS)
        worth = np.asarray(samples).mean(axis=(2, 3, 4))
        ahead = Lookahead(samples.reshape(*samples.shape[:2], -1), worth)
    strengths = {name: jnp.float32(value) for name, value in sampler.strengths.items()}
    return np.asarray(jax.jit(sampler.draw)(PARAMS, {}, keys_of(0, sampler.draws), PROMPT_IDS, ahead, strengths))


@pytest.fixture(scope="module")
def plain():
    return draw_images("plain")


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
    images = draw_images(kind, **fields)
    assert images.mean() > plain.mean() + 0.02
    if kind == "best_of":
        assert np.all(np.diff(images.mean(axis=(2, 3, 4)), axis=1) <= 0), "the best come first"


def test_sweep_over_strengths_compiles_once():
    """Strengths are inputs of the program."""
    texts = set()
    for scale in (1.0, 12.5):
        lidar = method_of("lidar", lookahead__scale=scale, lookahead__strength=scale * 100)
        ahead = Lookahead(jnp.zeros((PROMPTS, 8, 12)), jnp.zeros((PROMPTS, 8)))
        strengths = {name: jnp.float32(value) for name, value in lidar.strengths.items()}
        assert strengths["scale"] == scale
        texts.add(
            jax.jit(lidar.draw).lower(PARAMS, {}, keys_of(0, lidar.draws), PROMPT_IDS, ahead, strengths).as_text()
        )
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("kind", "fields", "cost"),
    [
        ("plain", {}, (80, 0, 0)),
        ("plain", {"guidance": 1.0}, (40, 0, 0)),
        ("best_of", {"best_of": 3}, (240, 0, 12)),
        ("gradient", {}, (80, 80, 40)),
        ("gradient", {"gradient__period": 2}, (80, 40, 20)),
        ("condition", {"condition__period": 2}, (80 + 40, 20, 20)),
        ("steering", {}, (80, 0, 20)),
        ("lidar", {"lookahead__particles": 7, "lookahead__steps": 3}, (80 + 42, 0, 7)),
        ("lidar_steering", {"lookahead__particles": 7, "lookahead__steps": 3}, (80 + 42, 0, 7 + 20)),
    ],
)
def test_costs_by_hand(kind, fields, cost):
    """10 steps, 4 images, two evaluations per prediction; FK steering resamples at steps 2, 4, 6, 8 and 9."""
    assert method_of(kind, **fields).cost == Cost(*cost)
