"""Sequence to sequence: the network, process and objective of a config."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.build.gaussian import SCHEDULES
from diffusion.build.names import pick
from diffusion.build.systems import System, plain_fields
from diffusion.codecs.embedding import Embedding
from diffusion.data.pair_sources import SOURCES
from diffusion.nets.encoder_decoder import EncoderDecoder
from diffusion.objectives.autoregressive import NextTarget
from diffusion.objectives.embedding import EmbeddingDiffusion
from diffusion.objectives.noise_scaling import NoiseScaling
from diffusion.objectives.perturbation import Perturbation
from diffusion.processes.gaussian import GaussianDiffusion

NET = "encoder_decoder"
# What each kind of it is trained for.
LEARNS = {"decoder": "embedding", "joint": "embedding", "causal": "next_target"}


def has_sources(config: ConfigDict) -> bool:
    """Whether the data are pairs; of text the model is one without a condition, that reads the mask for a source."""
    return config.data.source in SOURCES


def pair_system(config: ConfigDict, vocabulary: int) -> System:
    """The encoder-decoder over `vocabulary` tokens, then the mask and the padding; its codec is its own table.

    Raises:
      ValueError: for an unknown kind, schedule or scale, and for a kind that is trained for something else.
    """
    kind = config.encoder_decoder.kind
    needed = pick(LEARNS, kind, "encoder_decoder.kind")
    if config.objective.name != needed:
        raise ValueError(
            f"objective.name: {config.objective.name} does not train encoder_decoder.kind={kind}; use {needed}"
        )
    if kind == "joint" and not config.embedding.fill:
        raise ValueError("embedding.fill: one sequence of source and target has no length head; set it to True")
    told = config.data.source_length
    model, fields = config.model, plain_fields(config.encoder_decoder)
    if not has_sources(config):
        if kind != "decoder":
            raise ValueError(f"encoder_decoder.kind: {kind} reads sources, and {config.data.source} has none")
        if config.data.packing != "wrapped":
            raise ValueError("data.packing: embedding diffusion writes whole windows of text; set it to wrapped")
        told, fields["length_classes"] = 1, 0
    schedule = pick(SCHEDULES, config.process.schedule, "process.schedule")()
    process = GaussianDiffusion(schedule, config.process.prediction, config.process.factor)
    net = EncoderDecoder(vocabulary + 2, **fields, dtype=model.dtype, remat=model.remat, attention=model.attention)
    codec = Embedding(lambda params: params["embedding"], vocabulary, config.encoder_decoder.scale)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, time, cond, memory, keys=keys)

    def init(key):
        source, target = (jnp.zeros((1, size), jnp.int32) for size in (told, config.data.length))
        return net.init(key, source, target, method="start")["params"]

    return System(net, process, denoiser, init, config.data.length, vocabulary + 2, codec=codec)


def method(system: System, name: str) -> Callable[..., Any]:
    """One of the network's other calls, of parameters first: encode, next_logits, step."""

    def call(params, *inputs, **options):
        return system.net.apply({"params": params}, *inputs, method=name, **options)

    return call


def embedding_diffusion(config: ConfigDict, system: System) -> EmbeddingDiffusion:
    """Embedding diffusion with the self-conditioning and the noise of single tokens that the config asks for.

    Raises:
      ValueError: naming the field that is wrong.
    """
    fields = plain_fields(config.embedding)
    scp, mans, fill = fields.pop("scp"), fields.pop("mans"), fields.pop("fill")
    scaling = plain_fields(mans)
    scaling["anchors"] = tuple(tuple(pair) for pair in scaling["anchors"])
    try:
        return EmbeddingDiffusion(
            method(system, "encode"),
            system.denoiser,
            system.embedding,
            system.diffusing,
            perturbation=Perturbation(**plain_fields(scp)),
            scaling=NoiseScaling(**scaling),
            label_smoothing=config.objective.label_smoothing,
            fill=system.end if fill else None,
            none_id=None if has_sources(config) else system.embedding.vocabulary,
            **fields,
        )
    except ValueError as error:
        # Each part names its own field; where it stands in the config is known here.
        field = str(error)
        own = field.startswith(("process.", "objective.label_smoothing"))
        raise ValueError(field if own else f"embedding.{field.removeprefix('objective.')}") from None


def next_target(config: ConfigDict, system: System) -> NextTarget:
    """The autoregressive encoder-decoder's objective; the mask starts targets."""
    vocabulary = system.embedding.vocabulary
    encode, logits = method(system, "encode"), method(system, "next_logits")
    return NextTarget(encode, logits, vocabulary, vocabulary, config.objective.label_smoothing)


def pair_flops(config: ConfigDict, classes: int) -> tuple[float, float]:
    """Analytic floating-point operations of one example's source, and of one pass over its target; logits included.

    Products of matrices alone. One sequence of both is all target; a causal pass is that over all positions.
    """
    net, target = config.encoder_decoder, config.data.length
    source = config.data.source_length if has_sources(config) else 1
    hidden, latent = net.hidden, net.latent

    def blocks(count: int, tokens: int, told: int) -> float:
        own = tokens * (8 * hidden**2 + 4 * tokens * hidden + 4 * hidden * net.feed_forward)
        cross = tokens * (4 * hidden**2 + 4 * told * hidden) + told * 4 * hidden**2 if told else 0
        return count * (own + cross)

    joint = net.kind == "joint"
    tokens = source + target if joint else target
    enter = 2 * latent * hidden
    if net.kind != "causal":
        dinoiser = net.form == "dinoiser"
        enter = 8 * latent * hidden + 4 * hidden**2 if dinoiser else 4 * latent * hidden + 6 * hidden**2
        enter += 1024 * (256 + hidden) if dinoiser else 16 * hidden**2
    leave = target * 2 * latent * (hidden + classes)
    decoder = tokens * enter + blocks(net.decoder_blocks, tokens, 0 if joint else source) + leave
    encoder = 0.0 if joint else source * 2 * latent * hidden + blocks(net.encoder_blocks, source, 0)
    return float(encoder), float(decoder)


def pair_training_flops(config: ConfigDict, classes: int) -> float:
    """Those of one optimizer step: three passes where there is a gradient, and one for every estimate."""
    encoder, decoder = pair_flops(config, classes)
    if config.encoder_decoder.kind == "causal":
        return 3 * (encoder + decoder) * config.train.batch
    options = config.embedding
    summed, remembers = options.alternate == "sum", options.alternate == "sum" or options.memory_rate > 0
    passes = 3 * (1 + summed) + remembers + (options.mans.map != "off")
    return (3 * encoder + passes * decoder) * config.train.batch
