"""Pipelines of text-to-image models for a job: networks with their weights, and the conditioning of all prompts."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffusion.convert import diffusers
from diffusion.convert.clip import load_clip_text
from diffusion.convert.files import open_tensors
from diffusion.convert.lora import with_lora
from diffusion.convert.model_config import component
from diffusion.data.prompt_tokenizers import CLIPTokenizer, load_clip_tokenizer
from diffusion.sampling.gaussian.sampler import take_rows
from diffusion.schedules.gaussian import ScaledLinear
from diffusion.train.mesh import make_mesh, state_shardings
from diffusion.types import Params
from experiments.families import image_rewards, text_to_image
from experiments.families.base import rows_like
from experiments.families.image_rewards import Scorer
from experiments.families.random_weights import random_weights
from experiments.families.text_to_image import TOKENS, Backbone, Prompted
from experiments.published import TEXT_ENCODERS, conversion, open_weights, pipeline_sizes, sizes_of
from experiments.run_context import Run, in_batches

TOKENIZERS = ("tokenizer", "tokenizer_2")
ENCODED = 16  # prompts that the text encoders read at a time


class Pipeline(NamedTuple):
    """Parameters of the sampler, of the lookahead sampler, and of decoder and rewards, and what they read of prompts.

    `prompted` has one row for every prompt, on the host.
    """

    params: Params
    ahead: Params
    rewards: Params
    scorers: dict[str, Scorer]
    prompted: Prompted
    mesh: Mesh


def check_weights(config: ConfigDict) -> None:
    """Raise ValueError for weights that are neither random nor in a folder, or in a folder that lacks a part."""
    options, ahead = config.text_to_image, config.sample.gaussian.lookahead
    if options.random:
        if config.weights or ahead.weights or ahead.lora:
            raise ValueError("text_to_image.random: is set, and weights are given; leave one of them out")
        return
    if options.backbone.startswith("tiny"):
        raise ValueError(
            f"text_to_image.backbone: {options.backbone} has no published weights; set text_to_image.random"
        )
    if not config.weights:
        raise ValueError(
            "weights: empty; pass --config.weights=FOLDER with the published weights (experiments/findings/lidar.md "
            "lists them), or --config.text_to_image.random=True for timings with random ones"
        )
    wanted = {"text_to_image.pipeline": options.pipeline, "text_to_image.unet": options.unet}
    wanted |= {"sample.gaussian.lookahead.weights": ahead.weights, "sample.gaussian.lookahead.lora": ahead.lora}
    names = image_rewards.names(config)
    wanted |= {f"text_to_image.{name}": options[name] for name in names}
    wanted |= {"text_to_image.bert": options.bert} if "image_reward" in names else {}
    wanted |= {"text_to_image.clip": options.clip} if {"clip", "hps", "aesthetic"} & set(names) else {}
    for field, name in wanted.items():
        if name and not (Path(config.weights).expanduser() / name).exists():
            raise ValueError(
                f"{field}: {name!r} is not in the folder of weights, {config.weights!r}; download it there"
            )
    check_pipeline(Path(config.weights).expanduser() / options.pipeline, text_to_image.backbone_of(config))
    check_files(config, Path(config.weights).expanduser())


def check_pipeline(folder: Path, backbone: Backbone) -> None:
    """Raise ValueError for a pipeline of another kind, or with networks or a schedule of other sizes."""
    found, known = pipeline_sizes(folder), ScaledLinear()
    if found["xl"] != (len(backbone.encoders) > 1):
        kind = "SDXL" if found["xl"] else "Stable Diffusion 1.5"
        raise ValueError(f"text_to_image.pipeline: {folder} is a pipeline of {kind}; set text_to_image.backbone to it")
    encoders = [sizes_of(each) for each in backbone.encoders]
    for name, sizes, wanted in (
        ("unet", found["unet"], sizes_of(backbone.unet)),
        ("vae", found["vae"], sizes_of(backbone.vae)),
        *zip(TEXT_ENCODERS, found["text_encoders"], encoders, strict=False),
    ):
        for field, size in sizes.items():
            if size != wanted[field]:
                raise ValueError(
                    f"text_to_image.pipeline: {folder / name} has {field} {size} where text_to_image.backbone has "
                    f"{wanted[field]}; use the published pipeline"
                )
    schedule = found["schedule"]
    if (schedule["prediction_type"], schedule["train_steps"]) != ("epsilon", known.steps) or not np.allclose(
        (schedule["beta_start"], schedule["beta_end"]), (known.first, known.last)
    ):
        raise ValueError(f"text_to_image.pipeline: {folder / 'scheduler'} is not the schedule of Stable Diffusion 1.5")


def check_files(config: ConfigDict, weights: Path) -> None:
    """Raise ValueError for files that cannot be read, tokenizers, and LoRAs of another model; reads no tensors."""
    backbone, options = text_to_image.backbone_of(config), config.text_to_image
    folder, ahead = weights / options.pipeline, config.sample.gaussian.lookahead

    def opened(path: Path, part: str) -> Mapping[str, np.ndarray] | None:
        """The tensors of a file or a folder; None for a converted one, whose parts were all checked."""
        return None if conversion(path, part) else open_weights(path, part)

    for number, name in enumerate(TEXT_ENCODERS[: len(backbone.encoders)]):
        component(folder, TOKENIZERS[number])
        pipeline_tokenizer(folder, number)
        opened(folder, name)
    opened(folder, "vae")
    unet = opened(weights / options.unet if options.unet else folder, "unet")
    unet = opened(weights / ahead.weights, "unet") if ahead.weights else unet
    if ahead.lora:
        lora = open_tensors(weights / ahead.lora)
        if unet is not None:
            with_lora(unet, lora, ahead.lora_scale, source=str(weights / ahead.lora))
    for name in image_rewards.names(config):
        opened(weights / options[name], {"hps": "clip"}.get(name, name))
        image_rewards.scorers(config, (name,))[name].tokenizer(weights)


def opened(run: Run, prompts: list[str]) -> Pipeline:
    """The networks of a run on the devices of this process, with the conditioning of prompts.

    Text encoders are there only as long as they encode.
    """
    config, backbone = run.config, text_to_image.backbone_of(run.config)
    weights = None if config.text_to_image.random else Path(config.weights).expanduser()
    mesh = make_mesh(devices=jax.local_devices())
    scorers = image_rewards.scorers(config, image_rewards.names(config))
    source = random_source(run, backbone) if weights is None else file_source(config, backbone, weights)
    text, null = encoded(backbone, source, prompts)
    kept, texts = {"vae": source("vae")}, {}
    for name, scorer in scorers.items():
        params = random_weights(scorer.init, name=name) if weights is None else scorer.read(weights)
        texts[name] = in_parts(scorer.encode, params, scorer.tokenizer(weights)(prompts))
        kept[name] = scorer.kept(params)
    params = placed(text_to_image.cast(source("unet"), config.model.dtype), mesh)
    own = config.sample.gaussian.lookahead.weights or config.sample.gaussian.lookahead.lora
    ahead = placed(text_to_image.cast(source("lookahead"), config.model.dtype), mesh) if own else params
    return Pipeline(params, ahead, placed(kept, mesh), scorers, Prompted(text, null, texts), mesh)


def placed(params: Params, mesh: Mesh) -> Params:
    """Parameters on the devices of a mesh, one copy on each."""
    return jax.device_put(params, state_shardings(params, mesh))


def random_source(run: Run, backbone: Backbone) -> Callable[[str], Any]:
    """Random parameters of each part, and a stand-in for tokenizers."""
    config = run.config

    def part(name: str) -> Any:
        weights = partial(random_weights, seed=config.seed, name=name)
        if name == "unet":
            return weights(run.system.init)
        if name == "vae":
            image = rows_like(1, backbone.pixels, backbone.pixels, 3, dtype=jnp.float32)
            return weights(backbone.vae.init, image)["params"]
        number = int(name[-1])
        if name.startswith("tokenizer"):
            return image_rewards.hashed_tokenizer(backbone.encoders[number].vocab_size, TOKENS)
        return weights(backbone.encoders[number].init, rows_like(1, TOKENS, dtype=jnp.int32))["params"]

    return part


def file_source(config: ConfigDict, backbone: Backbone, weights: Path) -> Callable[[str], Any]:
    """Parameters of each part from the files of a pipeline, and its tokenizers."""
    options, folder = config.text_to_image, weights / config.text_to_image.pipeline
    ahead = config.sample.gaussian.lookahead

    def unet(path: str, loras: list[tuple[Path, float]]) -> Any:
        source = weights / path if path else folder
        return diffusers.unet_params(backbone.unet, open_weights(source, "unet"), str(source), loras)["params"]

    def part(name: str) -> Any:
        if name == "unet":
            return unet(options.unet, [])
        if name == "lookahead":
            return unet(ahead.weights or options.unet, [(weights / ahead.lora, ahead.lora_scale)] if ahead.lora else [])
        if name == "vae":
            return diffusers.vae_params(backbone.vae, open_weights(folder, name), str(folder / name))["params"]
        number = int(name[-1])
        if name.startswith("tokenizer"):
            return pipeline_tokenizer(folder, number)
        name = TEXT_ENCODERS[number]
        return load_clip_text(backbone.encoders[number], open_weights(folder, name), str(folder / name))["params"]

    return part


def pipeline_tokenizer(folder: Path, number: int) -> CLIPTokenizer:
    """The tokenizer of a text encoder; its padding is not in the files."""
    return load_clip_tokenizer(folder / TOKENIZERS[number], "zero" if number else "end", TOKENS)


def encoded(backbone: Backbone, source: Callable[[str], Any], prompts: list[str]) -> tuple[Any, Any]:
    """The conditioning of every prompt, and the null conditioning, on the host."""
    numbers = range(len(backbone.encoders))
    tokenizers = [source(f"tokenizer_{number}") for number in numbers]
    params = [source(f"text_encoder_{number}") for number in numbers]

    def encode(params: list[Params], ids: list) -> Any:
        return text_to_image.encode(backbone, params, ids)

    text = in_parts(encode, params, [np.asarray(tokenize(prompts)) for tokenize in tokenizers])
    empty = in_parts(encode, params, [np.asarray(tokenize([""])) for tokenize in tokenizers])
    return text, jax.tree.map(np.asarray, text_to_image.without_prompt(text, empty))


def in_parts(function: Callable[..., Any], params: Any, tokens: Any) -> Any:
    """What a function of parameters and tokens [P, ...] gives, for some prompts at a time, on the host."""
    count = len(jax.tree.leaves(tokens)[0])
    run, parts = jax.jit(function), []
    for rows in in_batches(count, min(ENCODED, count)):
        parts.append(jax.device_get(run(params, take_rows(tokens, rows))))
    return jax.tree.map(lambda *each: np.concatenate(each)[:count], *parts)
