"""Gaussian diffusion of images from prompts: network, objective, bound and sampler of a config."""

from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.subtokens import PixelCodec
from diffusion.data.arrays import image_shape
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.likelihood.estimators import Estimate
from diffusion.likelihood.gaussian import PixelBound
from diffusion.nets.sd.unet import TextConditioning, UNet
from diffusion.nets.text_conditioned_unet import TextConditionedUNet
from diffusion.objectives.gaussian import Denoising
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.sampling.gaussian import solvers
from diffusion.schedules import gaussian as schedules
from experiments.families import guidance, scorer
from experiments.families.base import Call, System, fields_of, lookup, rows_like

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, True, "likelihood"
DOMAINS = ("prompted",)
BOUND = "bound_gaussian"
SCHEDULES: dict[str, Callable[[], schedules.GaussianSchedule]] = {
    "scaled_linear": schedules.ScaledLinear,
    "cosine": schedules.CosineSignal,
    "sqrt_chain": schedules.SquareRootChain,
    "sigma_is_time": schedules.SigmaIsTime,
}
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "denoising": lambda config, system: Denoising(
        system.denoiser,
        system.diffusing,
        system.pixels,
        config.objective.prompt_dropout,
        system.net.null_id,
        config.objective.minimum_time,
    ),
}


def process(config: ConfigDict) -> GaussianDiffusion:
    """Gaussian noise; raises ValueError for an unknown schedule or prediction."""
    schedule = lookup(SCHEDULES, config.process.schedule, "process.schedule")()
    return GaussianDiffusion(schedule, config.process.prediction)


def network(config: ConfigDict) -> TextConditionedUNet:
    """The U-Net behind a table of words."""
    channels = image_shape(config.data)[2]
    unet = UNet(
        **fields_of(config.captioned_unet),
        in_channels=channels,
        out_channels=channels,
        dtype=config.model.dtype,
        attention=config.model.attention,
    )
    return TextConditionedUNet(unet, len(WORDS), PROMPT_LENGTH)


def system(config: ConfigDict, vocabulary: int) -> System:
    """The text-conditioned U-Net over the pixel values of `vocabulary` levels."""
    image, net = image_shape(config.data), network(config)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        # The network reads indices of a chain of a thousand steps, whatever the schedule.
        return net.apply({"params": params}, noisy, 1000 * time - 1, cond)

    def condition(params, prompts):
        null = jnp.full_like(prompts[:1], net.null_id)
        embed = [net.apply({"params": params}, each, method="embed") for each in (prompts, null)]
        return TextConditioning(embed[0]), TextConditioning(embed[1][0])  # pyright: ignore[reportArgumentType]

    def init(key):
        prompt = jnp.zeros((1, PROMPT_LENGTH), jnp.int32)
        return net.init(key, jnp.zeros((1, *image)), jnp.zeros(1), prompt)["params"]

    return System(
        net=net,
        process=process(config),
        denoiser=denoiser,
        init=init,
        length=config.data.length,
        codec=PixelCodec(vocabulary, image=image),
        condition=condition,
    )


def estimators(config: ConfigDict) -> list[str]:
    """The bound in bits per value; raises ValueError for any other."""
    if config.evaluate.estimator not in ("auto", BOUND) or config.evaluate.also:
        raise ValueError(f"evaluate.estimator: images have {BOUND} alone; use auto, and no evaluate.also")
    return [BOUND]


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """The bound over `evaluate.points` noise levels.

    Raises:
      ValueError: for a schedule, or a number of noise levels, over which the bound is not defined.
    """
    schedule, points = system.diffusing.schedule, config.evaluate.points
    if not isinstance(schedule, schedules.BetaChain):
        raise ValueError(f"process.schedule: {BOUND} is for chains; use scaled_linear")
    if not 2 <= points <= schedule.steps:
        raise ValueError(f"evaluate.points: must lie in 2 .. {schedule.steps}, not {points}")
    return PixelBound(system.pixels, solvers.karras(schedule, points))


def batch(config: ConfigDict) -> dict:
    """Shapes of one training batch."""
    size = config.train.batch
    return {
        "tokens": rows_like(size, config.data.length, dtype=jnp.int32),
        "weights": rows_like(size, config.data.length, dtype=jnp.float32),
        "prompt": rows_like(size, PROMPT_LENGTH, dtype=jnp.int32),
    }


def sampler(config: ConfigDict, system: System) -> Callable:
    """Images are drawn by a guided method (see `guidance.guided_sampler`): raises ValueError."""
    raise ValueError("model.net: images from prompts are drawn by sample.gaussian.method, with a reward beside it")


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of a batch of prompts, and before it the lookahead sampler where the method has one."""
    assert helper is not None
    prompts = rows_like(config.sample.batch, PROMPT_LENGTH, dtype=jnp.int32)
    guided = guidance.guided_sampler(config, system, scorer.reward(helper))
    return guidance.calls(config, guided, system, helper.init, prompts)
