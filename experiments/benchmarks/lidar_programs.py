"""What the methods of LiDAR's tables run for the images of a prompt, as programs by shape: no weights, no accelerator.

Each method is a list of parts: a pass through the U-Net, the decoder or a reward, in the batch in which the config runs
it, and the number of its executions. Parts come from the networks of the family `text_to_image`; their numbers from the
config and from `guidance.guided_sampler`. The update of a solver and LiDAR's two products are no part (1e-5 of FLOPs).
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.train.traffic import Operation, operations
from experiments import families
from experiments.families import guidance, image_rewards, text_to_image
from experiments.families.base import rows_like
from experiments.families.guided_methods import draws_of, method_of
from experiments.plan import find_row, resolve

FORWARD, BACKWARD = "U-Net forward", "U-Net backward"
DECODER, REWARD = "VAE", "reward"
KINDS = (FORWARD, BACKWARD, DECODER, REWARD)


class Part(NamedTuple):
    """`times` executions of a program; `backward` is the gradient by its input after, and without, its forward pass."""

    kind: str
    program: tuple[Operation, ...]
    times: float
    without: tuple[Operation, ...] = ()


class Cost(NamedTuple):
    """The parts of a method, and evaluations of the network for a prompt, forward and backward."""

    parts: tuple[Part, ...]
    forward: int
    backward: int


def row_config(module: Any, config: ConfigDict, name: str, overrides: dict | None = None) -> ConfigDict:
    """The config of a row of a table, with attention that shows in a trace; `overrides` are applied last."""
    config = resolve(config, find_row(list(module.rows(config)), name)["overrides"] | (overrides or {}), 0)
    config.model.attention = "plain"
    return config


def chunked(count: int, size: int) -> tuple[int, int]:
    """Numbers of chunks and of samples in each, as `guidance.in_chunks`."""
    chunks = -(-count // size) if 0 < size < count else 1
    return chunks, -(-count // chunks)


class Shapes(NamedTuple):
    """The fields of a config that decide the programs, and so the key of the cache of traces."""

    backbone: str
    dtype: str
    rewards: tuple[str, ...]
    images: int
    scores: bool


def method_cost(config: ConfigDict, published_date: bool = False, scores: bool = False) -> Cost:
    """The parts of a config's method for the images of one prompt, with their decoding at the end.

    With `published_date`, DATE evaluates the unconditional branch once in a step, as in its published code; ours does
    so twice, before and after the ascent. With `scores`, attention writes and reads its scores.

    Raises:
      ValueError: for other methods than those of the published tables, and without classifier-free guidance.
    """
    options, method, per = config.sample.gaussian, method_of(config), 2
    rewards = tuple(config.text_to_image.rewards)
    shapes = Shapes(config.text_to_image.backbone, config.model.dtype, rewards, config.text_to_image.images, scores)
    system = families.system(config, config.data.vocab_size)
    sampler = guidance.guided_sampler(config, system, text_to_image.latent_reward(config))
    steps, draws = config.sample.steps, draws_of(config)
    chunks, size = chunked(draws, options.chunk)
    turns, acting = steps * chunks, round(sampler.taken * steps) * chunks
    forward, backward = sampler.cost.evaluations, sampler.cost.backward
    if options.guidance == 1 or options.method not in ("plain", "gradient", "condition", "lidar"):
        raise ValueError(f"sample.gaussian.method: the cost of {options.method} is not composed here")
    parts = []
    if method.guide == "condition":
        again = 0 if published_date else acting
        forward -= acting * size * published_date
        parts.append(Part(FORWARD, unet(shapes, size), 2 * turns + acting + again))
        parts.append(Part(BACKWARD, unet(shapes, size, "context"), acting, unet(shapes, size)))
    else:
        parts.append(Part(FORWARD, unet(shapes, per * size), turns))
    if method.guide == "gradient":
        parts.append(Part(BACKWARD, unet(shapes, per * size, "x"), acting, unet(shapes, per * size)))
    if method.gradient:
        parts.append(Part(DECODER, decoder(shapes, size, True), acting))
        parts.append(Part(REWARD, reward(shapes, size, True), acting))
    if method.ahead:
        ahead, cfg = options.lookahead, 1 if guidance.lookahead_scale(config) == 1 else per
        pools, each = chunked(ahead.particles, options.chunk)
        parts.append(Part(FORWARD, unet(shapes, cfg * each), pools * ahead.steps))
        parts.append(Part(DECODER, decoder(shapes, ahead.particles), 1))
        parts.append(Part(REWARD, reward(shapes, ahead.particles), 1))
    parts.append(Part(DECODER, decoder(shapes, options.images), 1))
    return Cost(tuple(parts), forward, backward)


def config_of(shapes: Shapes) -> ConfigDict:
    """A config with the networks of some shapes."""
    from configs.lidar_geneval import get_config

    config = get_config("paper").copy_and_resolve_references()
    config.model.update(dtype=shapes.dtype, attention="plain")
    config.text_to_image.update(backbone=shapes.backbone, images=shapes.images, rewards=shapes.rewards)
    config.text_to_image.measures = shapes.rewards
    return config


def shapes_of_params(init: Any) -> Any:
    """The shapes of parameters."""
    return jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))


@cache
def unet(shapes: Shapes, rows: int, by: str = "") -> tuple[Operation, ...]:
    """One evaluation of the U-Net, or with its gradient by "x" or "context"."""
    config = config_of(shapes)
    system = families.system(config, config.data.vocab_size)
    latents: Any = rows_like(rows, *system.shape, dtype=jnp.float32)
    time: Any = rows_like(rows, dtype=jnp.float32)
    text = text_to_image.conditioning_like(text_to_image.backbone_of(config), rows)

    def evaluate(params: Any, x: Any, time: Any, text: Any) -> Any:
        return system.denoiser(params, x, time, text)

    def gradient(params: Any, x: Any, time: Any, text: Any, cotangent: Any) -> Any:
        def of(value):
            if by == "x":
                return evaluate(params, value, time, text)
            return evaluate(params, x, time, text._replace(context=value))

        result, pull = jax.vjp(of, x if by == "x" else text.context)
        return result, pull(cotangent)

    inputs = shapes_of_params(system.init), latents, time, text
    if by:
        return operations(gradient, *inputs, latents, scores=shapes.scores)
    return operations(evaluate, *inputs, scores=shapes.scores)


@cache
def decoder(shapes: Shapes, images: int, backward: bool = False) -> tuple[Operation, ...]:
    """Decoding of some latent images, with the gradient by them if `backward`."""
    config = config_of(shapes)
    decode, backbone = text_to_image.decoder(config), text_to_image.backbone_of(config)
    params = shapes_of_params(text_to_image.reward_init(config))["vae"]
    latents: Any = rows_like(images, backbone.side, backbone.side, backbone.unet.in_channels, dtype=jnp.float32)
    colors: Any = rows_like(images, backbone.pixels, backbone.pixels, 3, dtype=jnp.float32)

    def gradient(params: Any, latents: Any, cotangent: Any) -> Any:
        result, pull = jax.vjp(lambda x: decode(params, x), latents)
        return result, pull(cotangent)

    if backward:
        return operations(gradient, params, latents, colors, scores=shapes.scores)
    return operations(decode, params, latents, scores=shapes.scores)


@cache
def reward(shapes: Shapes, images: int, backward: bool = False) -> tuple[Operation, ...]:
    """The rewards of some images with their preprocessing, with the gradient by the images if `backward`."""
    config = config_of(shapes)
    scorers = image_rewards.scorers(config, shapes.rewards)
    params = shapes_of_params(text_to_image.reward_init(config))
    texts = {name: scorer.text_like(images) for name, scorer in scorers.items()}
    side = text_to_image.backbone_of(config).pixels
    colors: Any = rows_like(images, side, side, 3, dtype=jnp.float32)

    def score(params: Any, colors: Any, texts: Any) -> Any:
        return sum(scorer.score(params[name], colors, texts[name]) for name, scorer in scorers.items())

    def gradient(params: Any, colors: Any, texts: Any) -> Any:
        return jax.value_and_grad(lambda colors: jnp.sum(score(params, colors, texts)))(colors)

    return operations(gradient if backward else score, params, colors, texts, scores=shapes.scores)
