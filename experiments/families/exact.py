"""Exact models of known distributions, which are not trained: sets of images, and a Gaussian mixture on a line."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from diffusion.codecs.subtokens import PixelCodec
from diffusion.data.arrays import SHAPES
from diffusion.data.synthetic import HIGHEST, LOWEST
from diffusion.likelihood.estimators import Estimate
from diffusion.sampling.gaussian.lidar import kernel_logits
from diffusion.types import Params
from experiments.families import guidance
from experiments.families.base import Call, System, rows_like
from experiments.families.exact_models import ExactModel, no_denoiser
from experiments.families.guidance import Conditioning
from experiments.families.prompted_diffusion import process

TRAINED, CAUSAL, REWARDED, MEASURED_BY = False, False, False, "samples"
DOMAINS = ("prompted", "mixture")
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {}


def system(config: ConfigDict, vocabulary: int) -> System:
    """A model without parameters, of images or of numbers on a line by its data."""
    shape = SHAPES.get(config.data.source)
    return System(
        net=ExactModel(),
        process=process(config),
        denoiser=no_denoiser,
        init=lambda key: {},
        length=config.data.length,
        codec=PixelCodec(vocabulary, image=shape) if shape else PixelCodec(vocabulary, LOWEST, HIGHEST),
    )


def nearest_worth(reward_params: Params, clean: Array, conditioning: Conditioning) -> Float[Array, " B"]:
    """The worth of the nearest image of a prompt's set; the conditioning is (images, their worth, prompt indices)."""
    pools, worth = conditioning[:2]
    groups = clean.reshape(len(pools), -1, pools.shape[-1])
    near = jax.vmap(kernel_logits, in_axes=(0, 0, None, None))(pools, groups, 1.0, 1.0)
    return jnp.take_along_axis(worth, jnp.argmax(near, axis=-1), axis=1).reshape(-1)


def estimators(config: ConfigDict) -> list[str]:
    """An exact model is measured by its samples: raises ValueError."""
    raise ValueError(f"model.net: {config.model.net} is an exact model, measured by `sample`; evaluate a network")


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """As `estimators`."""
    raise ValueError(f"model.net: {config.model.net} is an exact model, measured by `sample`; evaluate a network")


def batch(config: ConfigDict) -> dict:
    """None: an exact model is not trained."""
    return {}


def sampler(config: ConfigDict, system: System) -> Callable:
    """As for images from prompts: raises ValueError."""
    raise ValueError("model.net: exact models are drawn from by sample.gaussian.method")


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of a batch of prompts with the exact reward.

    Raises:
      ValueError: for the mixture on a line.
    """
    if system.pixels.image is None:
        raise ValueError(
            f"row: {config.model.net} is an exact model of numbers on a line, with no program worth compiling"
        )
    size, options = config.sample.batch, config.sample.gaussian
    conditioning = (
        rows_like(size, options.pool, config.data.length, dtype=jnp.float32),
        rows_like(size, options.pool, dtype=jnp.float32),
        rows_like(size, dtype=jnp.int32),
    )
    guided = guidance.guided_sampler(config, system, nearest_worth)
    return guidance.calls(config, guided, system, system.init, conditioning)
