"""Sequence-to-sequence models: embedding diffusion with an encoder-decoder, and its autoregressive baseline."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.likelihood.estimators import Estimate
from diffusion.nets.encoder_decoder import EncoderDecoder
from diffusion.objectives.autoregressive import NextTarget
from diffusion.objectives.embedding import EmbeddingDiffusion
from diffusion.objectives.noise_scaling import NoiseScaling
from diffusion.objectives.perturbation import Perturbation
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.readout import Readout, of_features
from experiments.families import translation
from experiments.families.base import Call, System, fields_of, keys_like, lookup, rows_like
from experiments.families.pair_network import has_sources, network_call
from experiments.families.prompted_diffusion import SCHEDULES

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "samples"
DOMAINS = ("pairs", "text")
# The objective of each kind of network.
NEEDED = {"decoder": "embedding", "joint": "embedding", "causal": "next_target"}


def autoregressive(config: ConfigDict) -> bool:
    """Whether the network writes targets token by token."""
    return config.encoder_decoder.kind == "causal"


def system(config: ConfigDict, vocabulary: int) -> System:
    """The encoder-decoder over `vocabulary` tokens, then the mask and the padding; its codec is its own table.

    Raises:
      ValueError: for an unknown kind, schedule or scale, and for a kind that is trained for something else.
    """
    kind = config.encoder_decoder.kind
    needed = lookup(NEEDED, kind, "encoder_decoder.kind")
    if config.objective.name != needed:
        raise ValueError(
            f"objective.name: {config.objective.name} does not train encoder_decoder.kind={kind}; use {needed}"
        )
    if kind == "joint" and not config.embedding.fill:
        raise ValueError("embedding.fill: one sequence of source and target has no length head; set it to True")
    read = config.data.source_length
    model, fields = config.model, fields_of(config.encoder_decoder)
    if not has_sources(config):
        if kind != "decoder":
            raise ValueError(f"encoder_decoder.kind: {kind} reads sources, and {config.data.source} has none")
        if config.data.packing != "wrapped":
            raise ValueError("data.packing: embedding diffusion writes whole windows of text; set it to wrapped")
        read, fields["length_classes"] = 1, 0
    schedule = lookup(SCHEDULES, config.process.schedule, "process.schedule")()
    process = GaussianDiffusion(schedule, config.process.prediction, config.process.factor)
    net = EncoderDecoder(vocabulary + 2, **fields, dtype=model.dtype, remat=model.remat, attention=model.attention)
    scale, pieces = config.encoder_decoder.scale, config.objective.pieces
    codec = EmbeddingCodec(lambda params: params["embedding"], vocabulary, scale, pieces)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, time, cond, memory, keys=keys)

    def init(key):
        source, target = (jnp.zeros((1, size), jnp.int32) for size in (read, config.data.length))
        return net.init(key, source, target, method="start")["params"]

    return System(
        net=net,
        process=process,
        denoiser=denoiser,
        init=init,
        length=config.data.length,
        classes=vocabulary + 2,
        codec=codec,
    )


def embedding_diffusion(config: ConfigDict, system: System) -> EmbeddingDiffusion:
    """Embedding diffusion with the self-conditioning and the noise of single tokens that the config asks for.

    Raises:
      ValueError: naming the field that is wrong.
    """
    fields = fields_of(config.embedding)
    scp, mans, fill = fields.pop("scp"), fields.pop("mans"), fields.pop("fill")
    try:
        return EmbeddingDiffusion(
            network_call(system, "encode"),
            system.denoiser,
            system.embedding,
            system.diffusing,
            perturbation=Perturbation(**fields_of(scp)),
            scaling=NoiseScaling(**fields_of(mans)),
            label_smoothing=config.objective.label_smoothing,
            fill=system.end if fill else None,
            null_id=None if has_sources(config) else system.embedding.vocabulary,
            **fields,
        )
    except ValueError as error:
        # Each part names its own field; where it stands in the config is known here.
        field = str(error)
        own = field.startswith(("process.", "objective.label_smoothing"))
        raise ValueError(field if own else f"embedding.{field.removeprefix('objective.')}") from None


def next_target(config: ConfigDict, system: System) -> NextTarget:
    """The autoregressive encoder-decoder's objective; the mask starts targets."""
    vocabulary, encode = system.embedding.vocabulary, network_call(system, "encode")
    latents, logits = network_call(system, "next_latents"), network_call(system, "latent_logits")

    def next_readout(params, tokens, encoded, *, keys=None) -> Readout:
        return of_features(
            latents(params, tokens, encoded, keys=keys), partial(logits, params), config.objective.pieces
        )

    return NextTarget(encode, next_readout, vocabulary, vocabulary, config.objective.label_smoothing)


OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "embedding": embedding_diffusion,
    "next_target": next_target,
}


def estimators(config: ConfigDict) -> list[str]:
    """A sequence-to-sequence model has no likelihood: raises ValueError."""
    raise ValueError("evaluate: sequence-to-sequence models are measured by what they write; use sample")


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """As `estimators`."""
    raise ValueError("evaluate: sequence-to-sequence models are measured by what they write; use sample")


def batch(config: ConfigDict) -> dict:
    """Shapes of one training batch."""
    size, length = config.train.batch, config.data.length
    rows = {"tokens": rows_like(size, length, dtype=jnp.int32), "weights": rows_like(size, length, dtype=jnp.float32)}
    if has_sources(config):
        rows["source"] = rows_like(size, config.data.source_length, dtype=jnp.int32)
        rows["source_weights"] = rows_like(size, config.data.source_length, dtype=jnp.float32)
    return rows


def sampler(config: ConfigDict, system: System) -> Callable:
    """`sample(params, keys, prompt, label=None)` of text without a source."""
    return translation.text_sampler(config, system)


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of a batch of sources with all candidates of each, or of text without a source."""
    size, length = config.sample.batch, config.sample.length or config.data.length
    if not has_sources(config):
        turns = translation.evaluations_per_candidate(config)
        call = Call(
            name=f"sampler, {turns} evaluations",
            function=sampler(config, system),
            params=(system.init,),
            rows=(keys_like(size), rows_like(size, length, dtype=jnp.int32)),
            turns=turns,
        )
        return [call]
    model, read = translation.translator(config, system), config.data.source_length
    call = Call(
        name=f"sampler, {model.evaluations} evaluations, {model.candidates} candidates",
        function=model.translate,
        params=(system.init,),
        rows=(
            keys_like(size),
            rows_like(size, read, dtype=jnp.int32),
            rows_like(size, read, dtype=jnp.bool_),
        ),
        turns=model.evaluations,
    )
    return [call]
