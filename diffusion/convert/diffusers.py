"""Networks of Stable Diffusion and SDXL from the folders of diffusers: their sizes, weights and noise schedule.

A pipeline's folder has model_index.json, and a folder for each component, with its configuration and weights: unet,
vae, scheduler, text_encoder, and in SDXL text_encoder_2. Sizes come from the configuration, and each field that would
change the network in a way that is not implemented is an error.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.convert.files import LazyTensors, open_tensors
from diffusion.convert.lora import with_lora
from diffusion.convert.model_config import component, read_config
from diffusion.convert.template import dotted, fill
from diffusion.nets.sd.unet import TIME_IDS, AddedConditioning, UNet
from diffusion.nets.sd.vae import AutoencoderKL
from diffusion.types import Params

# Fields that have one supported value, the default of diffusers; numbers of channels and of layers are read below.
UNET_FIELDS = {
    "act_fn": "silu",
    "addition_embed_type_num_heads": 64,
    "attention_type": "default",
    "center_input_sample": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "downsample_padding": 1,
    "dropout": 0.0,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "resnet_out_scale_factor": 1.0,
    "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional",
}
# The softmax is in float32 whether `upcast_attention` or not.
UNET_READ = (
    *("block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "transformer_layers_per_block"),
    *("attention_head_dim", "cross_attention_dim", "in_channels", "out_channels", "norm_num_groups"),
    *("use_linear_projection", "addition_embed_type", "addition_time_embed_dim"),
    *("projection_class_embeddings_input_dim", "sample_size", "upcast_attention"),
)
VAE_FIELDS = {
    "act_fn": "silu",
    "in_channels": 3,
    "mid_block_add_attention": True,
    "out_channels": 3,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
VAE_READ = (
    *("block_out_channels", "down_block_types", "up_block_types", "layers_per_block", "latent_channels"),
    *("norm_num_groups", "scaling_factor", "sample_size", "force_upcast"),
)
# The names of the VAE's attention in files of before diffusers 0.13.
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_ATTENTION = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(OLD_NAMES)})\.")


class PipelineFacts(NamedTuple):
    """Whether a pipeline is SDXL, with two text encoders, and whether its empty prompt has a context of zeros."""

    xl: bool
    zeros_for_empty_prompt: bool


class SchedulerFacts(NamedTuple):
    """The noise schedule that a network was trained with, and the time grid of its sampler, in the words of diffusers.

    `prediction_type` is "epsilon" or "v_prediction", and `beta_schedule` always "scaled_linear". The grid of "leading"
    spacing starts at `steps_offset`. After its last time comes clean data with `set_alpha_to_one`, else time 0.
    """

    prediction_type: str
    beta_schedule: str
    beta_start: float
    beta_end: float
    train_steps: int
    timestep_spacing: str
    steps_offset: int
    set_alpha_to_one: bool


def pipeline_facts(folder: str | Path) -> PipelineFacts:
    """Return the facts of model_index.json.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is of another pipeline than those of Stable Diffusion and SDXL.
    """
    kinds = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    config = read_config(Path(folder) / "model_index.json", kinds, "pipeline")
    xl = config.get("_class_name", None) == kinds[1]
    return PipelineFacts(xl, config.get("force_zeros_for_empty_prompt", xl, (True, False)))


def unet_of(path: str | Path) -> UNet:
    """Return the network of unet/config.json, given as the file, its folder or the pipeline's.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is of another kind of model, or a field has a value that is not supported.
    """
    config = read_config(path, ("UNet2DConditionModel",), "unet")
    config.only(UNET_FIELDS, UNET_READ)
    channels = config.numbers("block_out_channels", [320, 640, 1280, 1280])
    levels = len(channels)
    down = config.get("down_block_types", ["CrossAttnDownBlock2D"] * (levels - 1) + ["DownBlock2D"])
    if len(down) != levels or not {"CrossAttnDownBlock2D", "DownBlock2D"}.issuperset(down):
        raise config.refused("down_block_types", "use CrossAttnDownBlock2D or DownBlock2D for each level")
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    config.get("up_block_types", up, (up,))
    layers = config.numbers("transformer_layers_per_block", 1, levels)
    addition = None
    if config.get("addition_embed_type", None, (None, "text_time")):
        width = config.number("addition_time_embed_dim", 0)
        pooled = config.number("projection_class_embeddings_input_dim", 0) - TIME_IDS * width
        if pooled < 1:
            raise config.refused("projection_class_embeddings_input_dim", f"use more than {TIME_IDS} x {width}")
        addition = (width, pooled)
    return UNet(
        channels=channels,
        transformer_layers=tuple(
            number if kind.startswith("Cross") else 0 for kind, number in zip(down, layers, strict=True)
        ),
        heads=config.numbers("attention_head_dim", 8, levels),  # the published name of the number of heads
        context_width=config.number("cross_attention_dim", 1280),
        time_width=4 * channels[0],
        layers=config.number("layers_per_block", 2),
        middle_layers=layers[-1],
        in_channels=config.number("in_channels", 4),
        out_channels=config.number("out_channels", 4),
        groups=config.number("norm_num_groups", 32),
        linear_projection=config.get("use_linear_projection", False, (True, False)),
        addition=addition,
    )


def vae_of(path: str | Path) -> AutoencoderKL:
    """Return the autoencoder of vae/config.json, given as the file, its folder or the pipeline's.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is of another kind of model, or a field has a value that is not supported.
    """
    config = read_config(path, ("AutoencoderKL",), "vae")
    config.only(VAE_FIELDS, VAE_READ)
    channels = config.numbers("block_out_channels", [64])
    for field, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        config.get(field, [kind] * len(channels), ([kind] * len(channels),))
    return AutoencoderKL(
        channels=channels,
        layers=config.number("layers_per_block", 1),
        latent_channels=config.number("latent_channels", 4),
        groups=config.number("norm_num_groups", 32),
        scale=config.real("scaling_factor", 0.18215),
    )


def scheduler_facts(path: str | Path) -> SchedulerFacts:
    """Return the facts of scheduler/scheduler_config.json, given as the file, its folder or the pipeline's.

    Fields that are missing have the default of DDIM, the sampler that the published configurations go with.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a field has a value that is not supported.
    """
    config = read_config(path, (), "scheduler", "scheduler_config.json")
    # Clean latents are not in [-1, 1]. Schedulers that never clip leave the field out, as ours may.
    config.get("clip_sample", False, (False,))
    for field in ("thresholding", "rescale_betas_zero_snr", "trained_betas"):
        config.get(field, None, (None, False))
    return SchedulerFacts(
        prediction_type=config.get("prediction_type", "epsilon", ("epsilon", "v_prediction")),
        beta_schedule=config.get("beta_schedule", "linear", ("scaled_linear",)),
        beta_start=config.real("beta_start", 0.0001),
        beta_end=config.real("beta_end", 0.02),
        train_steps=config.number("num_train_timesteps", 1000),
        timestep_spacing=config.get("timestep_spacing", "leading", ("leading", "linspace", "trailing")),
        steps_offset=config.get("steps_offset", 0, (0, 1)),
        set_alpha_to_one=config.get("set_alpha_to_one", True, (True, False)),
    )


def load_unet(
    path: str | Path, net: UNet, *, variant: str = "", loras: Sequence[tuple[str | Path, float]] = ()
) -> Params:
    """Return {"params": ...} of a U-Net from a pipeline's folder, a model's folder, or a file with the names of those.

    Tensors keep the type that they are stored in; see `open_tensors` for `variant`. Each of `loras`, (file, scale), is
    added to the weights, in order.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is not readable, a tensor does not fit, or a LoRA is for another model.
    """
    source, tensors = _open(path, "unet", variant)
    return unet_params(net, tensors, source, loras)


def unet_params(
    net: UNet, tensors: Mapping[str, np.ndarray], source: str, loras: Sequence[tuple[str | Path, float]] = ()
) -> Params:
    """Return {"params": ...} of a U-Net as `load_unet` does, from named tensors; `source` names them in errors."""
    for file, scale in loras:
        tensors = with_lora(tensors, open_tensors(file), scale, source=str(file))
    size = 2 ** (len(net.channels) - 1)
    added = None if net.addition is None else AddedConditioning(_like(1, net.addition[1]), _like(1, TIME_IDS))
    inputs = _like(1, size, size, net.in_channels), _like(1), _like(1, 1, net.context_width), added
    template = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    return {"params": fill(template, tensors, name_in_unet, source)}


def load_vae(path: str | Path, net: AutoencoderKL, *, variant: str = "") -> Params:
    """Return {"params": ...} of an autoencoder, as `load_unet` does; old and new names of attention are accepted.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a file is not readable, or a tensor does not fit.
    """
    source, tensors = _open(path, "vae", variant)
    return vae_params(net, tensors, source)


def vae_params(net: AutoencoderKL, tensors: Mapping[str, np.ndarray], source: str) -> Params:
    """Return {"params": ...} of an autoencoder as `load_vae` does, from named tensors; `source` is for errors."""
    names = {OLD_ATTENTION.sub(lambda found: f"{found[1]}.{OLD_NAMES[found[2]]}.", name): name for name in tensors}
    renamed = LazyTensors({new: partial(tensors.__getitem__, old) for new, old in names.items()})
    size = 2 ** (len(net.channels) - 1)
    template = jax.eval_shape(net.init, jax.random.key(0), _like(1, size, size, 3))["params"]
    return {"params": fill(template, renamed, dotted, source)}


def name_in_unet(keys: tuple[str, ...]) -> str:
    """Return the name of a leaf's tensor in a file of a U-Net, with "{}" for the number of a transformer block."""
    return dotted(keys, loops=("transformer_blocks",))


def _open(path: str | Path, name: str, variant: str) -> tuple[str, Mapping[str, np.ndarray]]:
    path = Path(path)
    path = component(path, name) if path.is_dir() else path
    return str(path), open_tensors(path, variant)


def _like(*shape: int) -> Any:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
