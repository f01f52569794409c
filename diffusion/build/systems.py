"""The network and the process of a config."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion import schedules
from diffusion.build.names import pick
from diffusion.codecs import Digits, shuffled
from diffusion.corrupt.masking import Masking
from diffusion.corrupt.partial import PartialMasking
from diffusion.data.arrays import image_shape, label_count
from diffusion.nets import classifier, mlp, unet
from diffusion.nets.digit_embedding import DigitEmbedding, check_embedding
from diffusion.nets.dit import DiT, flops_per_token
from diffusion.objectives.nelbo import Process
from diffusion.types import Denoiser, Params

SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "log_linear": lambda config: schedules.LogLinear(config.epsilon),
    "linear": lambda config: schedules.Linear(),
    "cosine": lambda config: schedules.Cosine(),
    "polynomial": lambda config: schedules.Polynomial(config.power),
    "geometric": lambda config: schedules.Geometric(config.low, config.high),
}


@dataclass(frozen=True)
class System:
    """A network, its process, and how to start it."""

    net: nn.Module
    process: Process
    denoiser: Denoiser
    init: Callable[[jax.Array], Params]
    length: int
    classes: int


def codec(config: ConfigDict, vocabulary: int) -> Digits:
    """The digits of tokens, in the order of the vocabulary or shuffled; raises ValueError when they do not fit."""
    if config.shuffle:
        return shuffled(vocabulary, config.digits, config.shuffle, config.shuffle_codes)
    return Digits(vocabulary, config.digits)


def process(config: ConfigDict, vocabulary: int) -> Process:
    """Masking of tokens, or of their digits."""
    schedule = pick(SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    if config.codec.digits == 1:
        return Masking(vocabulary, schedule)
    if config.model.causal or config.data.packing == "padded":
        raise ValueError("codec.digits: more than one goes with model.causal=False and data.packing=wrapped")
    fields = config.codec
    return PartialMasking(codec(fields, vocabulary), schedule, fields.carry_over, fields.chunk_point)


def transformer(config: ConfigDict, classes: int, process: Process) -> nn.Module:
    """The DiT, behind an embedding of digits where tokens have several."""
    fields = {name: value for name, value in config.model.items() if name not in ("net", "time_conditioning")}
    embedder = None
    if process.digits > 1:
        merge, shared, hidden = config.codec.merge, config.codec.shared, config.model.hidden
        check_embedding(process.digits, hidden, merge)
        embedder = DigitEmbedding(process.mask_id, process.digits, hidden, merge, shared)
    return DiT(vocab_size=classes, embedder=embedder, **fields)


def image_net(config: ConfigDict, classes: int, process: Process) -> nn.Module:
    """The U-Net over the pictures of `data.source`."""
    return unet.UNet(
        image_shape(config.data.source),
        classes,
        process.mask_id,
        process.digits,
        **plain_fields(config.unet),
        dtype=config.model.dtype,
        remat=config.model.remat,
        attention=config.model.attention,
        merge=config.codec.merge,
        shared=config.codec.shared,
    )


def perceptron(config: ConfigDict, classes: int, process: Process) -> nn.Module:
    """The MLP over all positions at once; its layers are the model's blocks."""
    model = config.model
    return mlp.Mlp(
        positions=config.data.length,
        classes=classes,
        base=process.mask_id,
        digits=process.digits,
        hidden=model.hidden,
        layers=model.blocks,
        dropout=model.dropout,
        time=model.time_conditioning,
        dtype=model.dtype,
    )


def image_classifier(config: ConfigDict, classes: int, process: Process) -> nn.Module:
    """The classifier of the pictures of `data.source` by its labels; it reads whole tokens."""
    if process.digits > 1:
        raise ValueError("codec.digits: a classifier reads whole tokens; its row sets codec.digits=1")
    del classes
    source, fields = config.data.source, plain_fields(config.classifier)
    shape, labels = image_shape(source), label_count(source)
    return classifier.Classifier(shape, process.mask_id, labels, **fields, dtype=config.model.dtype)


def plain_fields(section: ConfigDict) -> dict[str, Any]:
    """A section's fields; lists, which is what tuples become in a stored plan, as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


NETS: dict[str, Callable[[ConfigDict, int, Process], nn.Module]] = {
    "dit": transformer,
    "unet": image_net,
    "mlp": perceptron,
    "classifier": image_classifier,
}
EXAMPLE_FLOPS = {
    "unet": unet.flops_per_example,
    "mlp": mlp.flops_per_example,
    "classifier": classifier.flops_per_example,
}


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config over `vocabulary` tokens.

    With one symbol a token the mask comes after the tokens, then padding; digits have a mask of their own, and the
    network's classes are the tokens alone.
    """
    noise = process(config, vocabulary)
    classes = vocabulary if noise.digits > 1 else vocabulary + (2 if config.data.packing == "padded" else 1)
    net = pick(NETS, config.model.net, "model.net")(config, classes, noise)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        sigma = schedules.sigma(noise.schedule, time) if config.model.time_conditioning else None
        return net.apply({"params": params}, noisy, sigma, keys=keys)

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length * noise.digits), jnp.int32))["params"]

    return System(net, noise, denoiser, init, config.data.length, classes)


def training_flops(config: ConfigDict, classes: int) -> float:
    """Analytic floating-point operations of one optimizer step: three forward passes' worth a token."""
    model = config.model
    if model.net in EXAMPLE_FLOPS:
        net = NETS[model.net](config, classes, process(config, config.data.vocab_size))
        return 3 * EXAMPLE_FLOPS[model.net](net) * config.train.batch
    token = flops_per_token(
        hidden=model.hidden,
        blocks=model.blocks,
        vocab_size=classes,
        length=config.data.length,
        mlp_ratio=model.mlp_ratio,
        causal=model.causal,
    )
    return 3 * token * config.train.batch * config.data.length
