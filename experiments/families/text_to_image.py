"""The network and process of a config of Gaussian diffusion, exact models of known laws among them."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.subtokens import PixelCodec
from diffusion.data.arrays import image_shape
from diffusion.data.glyphs import HIGHEST, LOWEST, MIXTURE
from diffusion.glyphs.prompts import PROMPT_LENGTH, WORDS
from diffusion.nets.reward import RewardNet
from diffusion.nets.sd.unet import UNet, flops_per_example
from diffusion.nets.text_conditioned_unet import CaptionedUNet
from diffusion.oracles import mixture as oracle
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.sampling.gaussian.sampler import Predict
from diffusion.schedules import gaussian as schedules
from experiments.families.base import pick
from experiments.families.masked import System, plain_fields

SCHEDULES: dict[str, Callable[[], schedules.GaussianSchedule]] = {
    "scaled_linear": schedules.ScaledLinear,
    "cosine": schedules.CosineSignal,
    "sqrt": schedules.SquareRoot,
    "sqrt_chain": schedules.SquareRootChain,
    "sigma_is_time": schedules.SigmaIsTime,
}
# Networks that are trained, and exact models, which are not.
TRAINED, EXACT = ("captioned_unet", "reward"), ("picture_oracle", "mixture_oracle")
NETS = (*TRAINED, *EXACT)


class Exact(nn.Module):
    """In the place of a network: nothing to learn."""

    kind: str


def no_denoiser(params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
    """Stands for the denoiser of an exact model, whose distribution predicts; raises NotImplementedError."""
    raise NotImplementedError("an exact model has no network")


def gaussian_system(config: ConfigDict, vocabulary: int) -> System:
    """The system of a config whose noise is Gaussian; its codec says what tokens are as values.

    Raises:
      ValueError: for an unknown schedule or prediction.
    """
    schedule = pick(SCHEDULES, config.process.schedule, "process.schedule")()
    process = GaussianDiffusion(schedule, config.process.prediction)
    name = config.model.net
    if name == "mixture_oracle":
        codec = PixelCodec(vocabulary, LOWEST, HIGHEST)
        return System(Exact(name), process, no_denoiser, lambda key: {}, config.data.length, 0, codec=codec)
    image = image_shape(config.data.source)
    codec = PixelCodec(vocabulary, image=image)
    if name == "picture_oracle":
        return System(Exact(name), process, no_denoiser, lambda key: {}, config.data.length, 0, codec=codec)
    net = captioned(config) if name == "captioned_unet" else scorer(config)
    picture, prompt = jnp.zeros((1, *image)), jnp.zeros((1, PROMPT_LENGTH), jnp.int32)
    if name == "reward":

        def score(params, noisy, time, cond=None, memory=None, *, keys=None):
            return net.apply({"params": params}, noisy, cond)

        return System(
            net,
            process,
            score,
            lambda key: net.init(key, picture, prompt)["params"],
            config.data.length,
            0,
            codec=codec,
        )

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        # The network is told indices of a chain of a thousand steps, whatever the schedule.
        return net.apply({"params": params}, noisy, 1000 * time - 1, cond)

    def init(key):
        return net.init(key, picture, jnp.zeros(1), prompt)["params"]

    return System(net, process, denoiser, init, config.data.length, 0, codec=codec)


def captioned(config: ConfigDict) -> CaptionedUNet:
    """The U-Net behind a table of words."""
    fields = plain_fields(config.captioned_unet)
    colors = image_shape(config.data.source)[2]
    unet = UNet(
        **fields,
        in_channels=colors,
        out_channels=colors,
        dtype=config.model.dtype,
        attention=config.model.attention,
    )
    return CaptionedUNet(unet, len(WORDS), PROMPT_LENGTH)


def scorer(config: ConfigDict) -> RewardNet:
    """The reward model."""
    return RewardNet(len(WORDS), PROMPT_LENGTH, **plain_fields(config.reward), dtype=config.model.dtype)


def gaussian_flops(config: ConfigDict) -> float:
    """Analytic floating-point operations of one evaluation of the network for one example.

    0 for what is not counted: exact models, and rewards.
    """
    if config.model.net != "captioned_unet":
        return 0.0
    height, width, _ = image_shape(config.data.source)
    return flops_per_example(captioned(config).unet, height, width, PROMPT_LENGTH)


def reference_mixture() -> oracle.Mixture:
    """The law that `data.source=gaussian_mixture` draws from."""
    weights, means, deviations = MIXTURE
    return oracle.mixture(weights, means, [each**2 for each in deviations])


def exact_prediction(law: oracle.Mixture) -> Predict:
    """The exact denoiser of one law."""
    return lambda x, row, carry: (oracle.clean(law, x, row.alpha, row.sigma), carry)


def exact_pictures(pools: Any, deviation: float) -> Predict:
    """Exact denoisers of P sets of M pictures [P, M, D] with noise of `deviation`; consecutive states share one."""

    def predict(x, row, carry):
        groups = x.reshape(len(pools), -1, pools.shape[-1])
        weights, variances = jnp.zeros(pools.shape[1]), jnp.full(pools.shape[1], deviation**2)

        def one(means, x):
            return oracle.clean(oracle.Mixture(weights, means, variances), x, row.alpha, row.sigma)

        return jax.vmap(one)(pools, groups).reshape(x.shape), carry

    return predict
