"""The network and the process of a config."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

from diffusion.build.names import pick
from diffusion.codecs.embedding import Embedding
from diffusion.codecs.subtokens import PixelCodec, SubtokenCodec, shuffled
from diffusion.data.arrays import image_shape, label_count
from diffusion.nets import classifier, discrete_unet, mlp
from diffusion.nets.dit import DiT
from diffusion.nets.self_conditioning_adapter import check_kind
from diffusion.nets.subtoken_embedding import DigitEmbedding, check_embedding
from diffusion.objectives.self_conditioning import SoftEmbedding
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.schedules import masking as schedules
from diffusion.types import Denoiser, MaskedProcess, Params

SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "log_linear": lambda config: schedules.LogLinear(config.epsilon),
    "linear": lambda config: schedules.Linear(),
    "cosine": lambda config: schedules.Cosine(),
    "polynomial": lambda config: schedules.Polynomial(config.power),
    "geometric": lambda config: schedules.Geometric(config.low, config.high),
}


@dataclass(frozen=True)
class System:
    """A network, its process, and how to start it; `self_conditioning` makes its memory where it has one.

    `codec` says which values tokens are where the noise is Gaussian; `end` is the token that ends targets of pairs.

    With an error predictor beside it `base` is the system without, `extend(key, denoiser, judge)` makes the parameters
    of both from those of the base (and of the judge whose likelihoods it learns from), and `errors(params, state,
    label)` predicts, in `error_flops` an example.
    """

    net: nn.Module
    process: MaskedProcess | GaussianDiffusion
    denoiser: Denoiser
    init: Callable[[jax.Array], Params]
    length: int
    classes: int
    self_conditioning: SoftEmbedding | None = None
    base: "System | None" = None
    extend: Callable[..., Params] | None = None
    errors: Callable[..., Array] | None = None
    error_flops: float = 0.0
    codec: PixelCodec | Embedding | None = None
    end: int = 0

    @property
    def masking(self) -> MaskedProcess:
        """The process of a model of masked tokens."""
        assert not isinstance(self.process, GaussianDiffusion)
        return self.process

    @property
    def diffusing(self) -> GaussianDiffusion:
        """The process of a model with Gaussian noise."""
        assert isinstance(self.process, GaussianDiffusion)
        return self.process

    @property
    def levels(self) -> PixelCodec:
        """The codec of a model of pictures."""
        assert isinstance(self.codec, PixelCodec)
        return self.codec

    @property
    def embedding(self) -> Embedding:
        """The codec of embedding diffusion."""
        assert isinstance(self.codec, Embedding)
        return self.codec


def codec(config: ConfigDict, vocabulary: int) -> SubtokenCodec:
    """The digits of tokens, in the order of the vocabulary or shuffled; raises ValueError when they do not fit."""
    if config.shuffle:
        return shuffled(vocabulary, config.digits, config.shuffle, config.shuffle_codes)
    return SubtokenCodec(vocabulary, config.digits)


def process(config: ConfigDict, vocabulary: int) -> MaskedProcess:
    """Masking of tokens, or of their digits."""
    schedule = pick(SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    if config.codec.digits == 1:
        return MaskedDiffusion(vocabulary, schedule)
    if config.model.causal or config.data.packing == "padded":
        raise ValueError("codec.digits: more than one goes with model.causal=False and data.packing=wrapped")
    fields = config.codec
    return PartialMaskedDiffusion(codec(fields, vocabulary), schedule, fields.carry_over, fields.chunk_point)


def transformer(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The DiT, behind an embedding of digits where tokens have several."""
    fields = {name: value for name, value in config.model.items() if name not in ("net", "time_conditioning")}
    fields["memory"] = config.memory.adapter
    embedder = None
    if process.subtokens > 1:
        merge, shared, hidden = config.codec.merge, config.codec.shared, config.model.hidden
        check_embedding(process.subtokens, hidden, merge)
        embedder = DigitEmbedding(process.mask_id, process.subtokens, hidden, merge, shared)
    return DiT(vocab_size=classes, embedder=embedder, **fields)


def image_net(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The U-Net over the pictures of `data.source`."""
    return discrete_unet.UNet(
        image_shape(config.data.source),
        classes,
        process.mask_id,
        process.subtokens,
        **plain_fields(config.unet),
        dtype=config.model.dtype,
        remat=config.model.remat,
        unroll=config.model.unroll,
        attention=config.model.attention,
        merge=config.codec.merge,
        shared=config.codec.shared,
        memory=config.memory.adapter,
    )


def perceptron(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The MLP over all positions at once; its layers are the model's blocks."""
    model = config.model
    return mlp.Mlp(
        positions=config.data.length,
        classes=classes,
        base=process.mask_id,
        digits=process.subtokens,
        hidden=model.hidden,
        layers=model.blocks,
        dropout=model.dropout,
        time=model.time_conditioning,
        dtype=model.dtype,
    )


def image_classifier(config: ConfigDict, classes: int, process: MaskedProcess) -> nn.Module:
    """The classifier of the pictures of `data.source` by its labels; it reads whole tokens."""
    if process.subtokens > 1:
        raise ValueError("codec.digits: a classifier reads whole tokens; its row sets codec.digits=1")
    del classes
    source, fields = config.data.source, plain_fields(config.classifier)
    shape, labels = image_shape(source), label_count(source)
    return classifier.Classifier(shape, process.mask_id, labels, **fields, dtype=config.model.dtype)


def plain_fields(section: ConfigDict) -> dict[str, Any]:
    """A section's fields; lists, which is what tuples become in a stored plan, as tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in section.items()}


NETS: dict[str, Callable[[ConfigDict, int, MaskedProcess], nn.Module]] = {
    "dit": transformer,
    "unet": image_net,
    "mlp": perceptron,
    "classifier": image_classifier,
}


def denoising_system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config over `vocabulary` tokens, without an error predictor.

    With one symbol a token the mask comes after the tokens, then padding; digits have a mask of their own, and the
    network's classes are the tokens alone.
    """
    noise = process(config, vocabulary)
    classes = vocabulary if noise.subtokens > 1 else vocabulary + (2 if config.data.packing == "padded" else 1)
    check_memory(config)
    net = pick(NETS, config.model.net, "model.net")(config, classes, noise)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        sigma = schedules.sigma(noise.schedule, time) if config.model.time_conditioning else None
        inputs = {"label": cond} if config.model.labels else {}
        inputs |= {"memory": memory} if config.memory.adapter != "none" else {}
        return net.apply({"params": params}, noisy, sigma, **inputs, keys=keys)

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length * noise.subtokens), jnp.int32))["params"]

    return System(net, noise, denoiser, init, config.data.length, classes, self_conditioning(config, net, noise))


def check_memory(config: ConfigDict) -> None:
    """Raise ValueError where a network has no place for a memory or for labels."""
    check_kind(config.memory.adapter)
    if config.memory.adapter != "none" and (config.model.causal or config.model.net not in ("dit", "unet")):
        raise ValueError("memory.adapter: goes with model.net=dit or unet and model.causal=False; set it to none")
    if config.model.labels and config.model.net != "dit":
        raise ValueError("model.labels: goes with model.net=dit; set it to 0")
    count = label_count(config.data.source) if config.model.labels else 0
    if config.model.labels != count:
        raise ValueError(f"model.labels: {config.data.source} has {count}; pass --config.model.labels={count}")


def self_conditioning(config: ConfigDict, net: nn.Module, process: MaskedProcess) -> SoftEmbedding | None:
    """How this network remembers a prediction; None for one that does not."""
    if config.memory.adapter == "none":
        return None
    codes = process.encode(jnp.arange(process.vocabulary)[None])
    width = config.model.hidden if config.model.net == "dit" else config.unet.channels

    def table(params) -> Any:
        return net.apply({"params": params}, codes, method="token_table")

    return SoftEmbedding(process, table, width, config.memory.rows, config.model.dtype)
