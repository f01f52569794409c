"""Latent diffusion of images from text: Stable Diffusion 1.5 and SDXL, and networks of their kinds for tests."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from diffusion.likelihood.estimators import Estimate
from diffusion.nets.sd import unet, vae
from diffusion.nets.sd.clip import BIGG_TEXT, CLIP_L_TEXT, CLIPText
from diffusion.nets.sd.unet import AddedConditioning, TextConditioning, UNet
from diffusion.nets.sd.vae import AutoencoderKL
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.schedules.gaussian import ScaledLinear
from diffusion.types import Params
from experiments.families import guidance, image_rewards
from experiments.families.base import Call, System, rows_like

TRAINED, CAUSAL, REWARDED, MEASURED_BY = False, False, False, "samples"
DOMAINS = ("captions",)
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {}
TOKENS = 77  # of a prompt, for CLIP
NO_LIKELIHOOD = "model.net: text_to_image has no likelihood of images; run `sample`, which measures it"


class Backbone(NamedTuple):
    """The networks of a pipeline, and the side of a latent image; SDXL has two text encoders."""

    unet: UNet
    vae: AutoencoderKL
    encoders: tuple[CLIPText, ...]
    side: int

    @property
    def pixels(self) -> int:
        """The side of an image."""
        return self.side * 2 ** (len(self.vae.channels) - 1)


# A hundred thousand parameters, with every part of the published networks.
TINY_TEXT = CLIPText(vocab_size=512, length=TOKENS, width=16, layers=2, heads=2, feed_forward=32)
TINY_VAE = AutoencoderKL(channels=(8, 16), layers=1, groups=4)
TINY_UNET = UNet((8, 16), (0, 1), (2, 2), context_width=16, time_width=32, layers=1, groups=4)
TINY_XL = UNet((8, 16), (0, 2), (2, 2), 32, 32, 1, 2, groups=4, linear_projection=True, addition=(8, 16))
BACKBONES = {
    "sd15": Backbone(unet.SD15, vae.SD_VAE, (CLIP_L_TEXT,), 64),
    "sdxl": Backbone(unet.SDXL, vae.SDXL_VAE, (CLIP_L_TEXT, BIGG_TEXT), 128),
    "tiny": Backbone(TINY_UNET, TINY_VAE, (TINY_TEXT,), 8),
    "tiny_xl": Backbone(TINY_XL, TINY_VAE, (TINY_TEXT, TINY_TEXT.clone(projection=16)), 8),
}


class Prompted(NamedTuple):
    """What networks read of P prompts: conditioning and null conditioning of the U-Net, and the text of each reward."""

    text: TextConditioning
    null: TextConditioning
    rewards: dict[str, Any]


def backbone_of(config: ConfigDict) -> Backbone:
    """The networks of a config."""
    return BACKBONES[config.text_to_image.backbone]


def system(config: ConfigDict, vocabulary: int) -> System:
    """The U-Net in the space of latent images, with parameters in `model.dtype`."""
    backbone = backbone_of(config)
    net = backbone.unet.clone(dtype=config.model.dtype, attention=config.model.attention, remat=config.model.remat)
    latent = (backbone.side, backbone.side, net.in_channels)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        assert cond is not None
        return net.apply({"params": params}, noisy, 1000 * time - 1, cond.context, cond.added)

    def init(key):
        text = conditioning_like(backbone, 1)
        return cast(net.init(key, jnp.zeros((1, *latent)), jnp.zeros(1), *zeros(text))["params"], config.model.dtype)

    def condition(params, prompted):
        return prompted.text, jax.tree.map(lambda leaf: leaf[0], prompted.null)

    return System(
        net=net,
        process=GaussianDiffusion(ScaledLinear(), "epsilon"),
        denoiser=denoiser,
        init=init,
        length=int(np.prod(latent)),
        condition=condition,
        latent=latent,
    )


def cast(params: Params, dtype: str) -> Params:
    """Parameters in another type."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def conditioning_like(backbone: Backbone, prompts: int) -> Any:
    """The shapes of the conditioning of some prompts."""
    context: Any = rows_like(prompts, TOKENS, backbone.unet.context_width, dtype=jnp.float32)
    if backbone.unet.addition is None:
        return TextConditioning(context)
    pooled: Any = rows_like(prompts, backbone.unet.addition[1], dtype=jnp.float32)
    times: Any = rows_like(prompts, unet.TIME_IDS, dtype=jnp.float32)
    return TextConditioning(context, AddedConditioning(pooled, times))


def zeros(like: Any) -> Any:
    """Zeros of some shapes."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)


def encode(backbone: Backbone, params: list[Params], ids: list[Array]) -> TextConditioning:
    """The conditioning of prompts from the ids of each text encoder (specification of LiDAR, section 7.1).

    Stable Diffusion 1.5 reads the hidden states of CLIP-L, and for no prompt those of the empty text. SDXL reads the
    hidden states before the last layer of two encoders side by side, the projection of the second one at the end of the
    text, and the sizes of the image; for no prompt all but the sizes are zeros.
    """
    encoders = zip(backbone.encoders, params, ids, strict=True)
    outputs: list[Any] = [net.apply({"params": each}, row) for net, each, row in encoders]
    if backbone.unet.addition is None:
        return TextConditioning(outputs[0].hidden)
    context = jnp.concatenate([each.penultimate for each in outputs], axis=-1)
    sizes = jnp.array([backbone.pixels, backbone.pixels, 0, 0, backbone.pixels, backbone.pixels], jnp.float32)
    times = jnp.broadcast_to(sizes[None], (len(context), unet.TIME_IDS))
    return TextConditioning(context, AddedConditioning(outputs[-1].pooled, times))


def without_prompt(text: TextConditioning, empty: TextConditioning) -> TextConditioning:
    """The null conditioning of every prompt: that of the `empty` text, in SDXL zeros with the same sizes."""
    if text.added is None:
        return TextConditioning(jnp.broadcast_to(empty.context[:1], text.context.shape))
    pooled = jnp.zeros_like(text.added.pooled)
    return TextConditioning(jnp.zeros_like(text.context), text.added._replace(pooled=pooled))


def decoder(config: ConfigDict) -> Callable[[Params, Array], Array]:
    """The map of latent images [B, h, w, 4] to images [B, H, W, 3] in [0, 1], in float32."""
    net = backbone_of(config).vae

    def decode(params: Params, latents: Array) -> Array:
        images = vae.decode_in_chunks(net, {"params": params}, latents, config.text_to_image.images)
        return jnp.clip(images / 2 + 0.5, 0, 1)

    return decode


def latent_reward(config: ConfigDict) -> guidance.Reward:
    """The sum of the rewards of a config, times their weights, of latent images; differentiable in them.

    `reward_params` are those of the decoder, "vae", and of every reward, by name.
    """
    decode, options = decoder(config), config.text_to_image
    scorers = image_rewards.scorers(config, tuple(options.rewards))

    def score(reward_params, clean, prompted):
        images = decode(reward_params["vae"], clean)
        total = jnp.zeros(len(clean))
        for (name, scorer), weight in zip(scorers.items(), options.mix, strict=True):
            repeat = len(clean) // len(jax.tree.leaves(prompted.rewards[name])[0])
            text = jax.tree.map(lambda leaf, repeat=repeat: jnp.repeat(leaf, repeat, axis=0), prompted.rewards[name])
            total += weight * scorer.score(reward_params[name], images, text)
        return total

    return score


def prompted_like(config: ConfigDict, prompts: int) -> Prompted:
    """The shapes of what networks read of some prompts."""
    text = conditioning_like(backbone_of(config), prompts)
    scorers = image_rewards.scorers(config, image_rewards.names(config))
    return Prompted(text, text, {name: scorer.text_like(prompts) for name, scorer in scorers.items()})


def reward_init(config: ConfigDict) -> Callable[[jax.Array], Params]:
    """Random parameters of the decoder and of all rewards of a config."""
    net, side = backbone_of(config).vae, backbone_of(config).pixels

    def init(key):
        parts = {"vae": net.init(key, jnp.zeros((1, side, side, 3)))["params"]}
        scorers = image_rewards.scorers(config, image_rewards.names(config))
        return parts | {name: scorer.init(key) for name, scorer in scorers.items()}

    return init


def estimators(config: ConfigDict) -> list[str]:
    """Raises ValueError: a latent diffusion model has no likelihood of images."""
    raise ValueError(NO_LIKELIHOOD)


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """As `estimators`."""
    raise ValueError(NO_LIKELIHOOD)


def batch(config: ConfigDict) -> dict:
    """None: published networks are not trained here."""
    return {}


def sampler(config: ConfigDict, system: System) -> Callable:
    """As for images from prompts of glyphs: raises ValueError."""
    raise ValueError("model.net: text_to_image is drawn from by sample.gaussian.method")


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of a batch of prompts, and before it the lookahead sampler where the method has one."""
    prompted = prompted_like(config, config.sample.batch)
    guided = guidance.guided_sampler(config, system, latent_reward(config))
    return guidance.calls(config, guided, system, reward_init(config), prompted)
