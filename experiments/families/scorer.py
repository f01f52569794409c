"""Reward models: one number for an image and its prompt, learned from scored images."""

from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.subtokens import PixelCodec
from diffusion.data.arrays import image_shape
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.likelihood.estimators import Estimate
from diffusion.nets.reward import RewardNet
from diffusion.objectives.supervised import ScoreRegression
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.schedules.gaussian import ScaledLinear
from experiments.families.base import Call, System, fields_of, rows_like
from experiments.families.guidance import Reward

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "ranking"
DOMAINS = ("prompted",)
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "reward": lambda config, system: ScoreRegression(system.denoiser, system.pixels, config.objective.noise),
}


def system(config: ConfigDict, vocabulary: int) -> System:
    """The reward network, called as a denoiser is, on images [B, H, W, C] and prompts; the process is not used."""
    image = image_shape(config.data)
    net = RewardNet(len(WORDS), PROMPT_LENGTH, **fields_of(config.reward), dtype=config.model.dtype)

    def score(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, cond)

    def init(key):
        return net.init(key, jnp.zeros((1, *image)), jnp.zeros((1, PROMPT_LENGTH), jnp.int32))["params"]

    return System(
        net=net,
        process=GaussianDiffusion(ScaledLinear()),
        denoiser=score,
        init=init,
        length=config.data.length,
        codec=PixelCodec(vocabulary, image=image),
    )


def reward(system: System) -> Reward:
    """The score of clean images [P N, ...] for P prompts; consecutive images are of one prompt."""

    def score(reward_params, clean, prompts):
        repeated = jnp.repeat(prompts, len(clean) // len(prompts), axis=0)
        return system.denoiser(reward_params, clean, jnp.zeros(len(clean)), repeated)

    return score


def estimators(config: ConfigDict) -> list[str]:
    """None: a reward is measured by how it ranks held-out images."""
    return []


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """A reward has no likelihood: raises ValueError."""
    raise ValueError("model.net: a reward has no likelihood")


def batch(config: ConfigDict) -> dict:
    """Shapes of one training batch."""
    size = config.train.batch
    return {
        "tokens": rows_like(size, config.data.length, dtype=jnp.int32),
        "weights": rows_like(size, config.data.length, dtype=jnp.float32),
        "prompt": rows_like(size, PROMPT_LENGTH, dtype=jnp.int32),
        "score": rows_like(size, dtype=jnp.float32),
    }


def sampler(config: ConfigDict, system: System) -> Callable:
    """A reward draws nothing: raises ValueError."""
    raise ValueError("model.net: a reward draws no samples; name a row with a generative model")


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """None: a reward is trained alone."""
    return []
