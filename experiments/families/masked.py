"""Masked diffusion over tokens or sub-tokens: process, denoiser, objectives, estimators and sampler of a config."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.subtokens import SubtokenCodec, shuffled_codec
from diffusion.convert.files import read_permutation
from diffusion.data.arrays import label_count
from diffusion.likelihood.estimators import CAUSAL as CAUSAL_ESTIMATORS
from diffusion.likelihood.estimators import Estimate, estimator, split_passes
from diffusion.nets.dit import DiT
from diffusion.objectives.cross_entropy import CrossEntropy
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.reveal import RevealNelbo
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.readout import SplitDenoiser
from diffusion.schedules import masking as schedules
from diffusion.types import Denoiser, MaskedProcess, Params
from experiments.families import error_prediction, gpt2, masked_sampling
from experiments.families.base import Call, System, estimator_names, keys_like, lookup, rows_like
from experiments.families.networks import network_of

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "likelihood"
DOMAINS = ("text", "image", "molecules", "genomes", "values")
SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "log_linear": lambda config: schedules.LogLinear(config.epsilon),
    "linear": lambda config: schedules.Linear(),
    "cosine": lambda config: schedules.Cosine(),
    "polynomial": lambda config: schedules.Polynomial(config.power),
    "geometric": lambda config: schedules.Geometric(config.low, config.high),
}
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "nelbo": lambda config, system: Nelbo(
        trained_denoiser(config, system), system.masking, config.objective.minimum_time, config.objective.target
    ),
    "nelbo_reveal": lambda config, system: RevealNelbo(
        trained_denoiser(config, system), system.masking, config.objective.target
    ),
    "cross_entropy": lambda config, system: CrossEntropy(trained_denoiser(config, system), system.masking),
    "errors": error_prediction.objective,
}


def codec(config: ConfigDict, vocabulary: int) -> SubtokenCodec:
    """The sub-tokens of tokens, in the vocabulary's order or permuted; raises ValueError when they do not fit."""
    if config.permutation:
        if config.shuffle:
            raise ValueError("codec.shuffle: goes without codec.permutation; set it to 0")
        return SubtokenCodec(vocabulary, config.digits, read_permutation(config.permutation))
    if config.shuffle:
        return shuffled_codec(vocabulary, config.digits, config.shuffle, config.shuffle_codes)
    return SubtokenCodec(vocabulary, config.digits)


def process(config: ConfigDict, vocabulary: int) -> MaskedProcess:
    """Masking of tokens, or of their sub-tokens."""
    schedule = lookup(SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    if config.codec.digits == 1:
        if config.codec.permutation:
            raise ValueError("codec.permutation: goes with more than one of codec.digits; leave it empty")
        return MaskedDiffusion(vocabulary, schedule)
    if config.data.packing == "padded":
        raise ValueError("codec.digits: more than one goes with data.packing=wrapped")
    fields = config.codec
    return PartialMaskedDiffusion(codec(fields, vocabulary), schedule, fields.carry_over, fields.chunk_point)


def denoising_system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config over `vocabulary` tokens, without an error predictor.

    The symbols that a network reads and predicts are followed by the mask and then by padding among its classes. A
    denoiser of sub-tokens predicts tokens, which are all of its classes; a causal network predicts sub-tokens.
    """
    noise = process(config, vocabulary)
    predicts_symbols = noise.subtokens == 1 or config.model.causal
    classes = noise.mask_id + (2 if config.data.packing == "padded" else 1) if predicts_symbols else vocabulary
    check_conditioning(config)
    net = network_of(config).make(config, classes, noise)

    def apply(params, noisy, time, cond=None, memory=None, *, keys=None, method=None) -> Any:
        sigma = schedules.sigma(noise.schedule, time) if config.model.time_conditioning else None
        inputs: dict[str, Any] = {"label": cond} if config.model.labels else {}
        inputs |= {"memory": memory} if config.memory.adapter != "none" else {}
        return net.apply({"params": params}, noisy, sigma, **inputs, keys=keys, method=method)

    denoiser = apply
    if isinstance(net, DiT):
        denoiser = SplitDenoiser(partial(apply, method="head_input"), logits_of(net), config.objective.pieces)
    elif config.objective.pieces:
        raise ValueError(f"objective.pieces: {config.model.net} computes all logits at once; set it to 0")

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length * noise.subtokens), jnp.int32))["params"]

    return System(
        net=net,
        process=noise,
        denoiser=denoiser,
        init=init,
        length=config.data.length,
        classes=classes,
        self_conditioning=self_conditioning(config, net, noise),
    )


def logits_of(net: nn.Module) -> Callable[[Params, Any], Any]:
    """The last linear map of a transformer, as a function of its parameters and input."""
    return lambda params, x: net.apply({"params": params}, x, method="logits")


def system(config: ConfigDict, vocabulary: int) -> System:
    """The denoiser of a config, and the error predictor beside it where `predictor.kind` names one."""
    judge = judge_system(config, vocabulary) if config.predictor.kind != "none" else None
    return error_prediction.extended(config, denoising_system(config, vocabulary), judge)


def judge_system(config: ConfigDict, vocabulary: int) -> System | None:
    """The autoregressive network, GPT-2 or of this config's sizes, whose likelihoods are a predictor's labels."""
    if config.predictor.labels != "likelihood":
        return None
    if config.predictor.judge == "gpt2":
        return gpt2.label_judge(config, process(config, vocabulary))
    causal = config.copy_and_resolve_references()
    causal.model.update(causal=True, adaln=False, labels=0)
    causal.codec.digits, causal.memory.adapter = 1, "none"
    return denoising_system(causal, vocabulary)


def check_conditioning(config: ConfigDict) -> None:
    """Raise ValueError where a network has no place for memory, labels or a given first token, or cannot be causal."""
    network = network_of(config)
    if config.model.start != "mask" and not config.model.causal:
        raise ValueError("model.start: window goes with model.causal=True; set it to mask")
    if config.model.start != "mask" and config.codec.digits > 1:
        raise ValueError("model.start: window is a whole token; set it to mask, or codec.digits to 1")
    if config.model.causal and config.model.net != "dit":
        raise ValueError(f"model.causal: {config.model.net} reads what follows; use model.net=dit, or set it to False")
    if config.memory.adapter != "none" and (config.model.causal or network.width is None):
        raise ValueError("memory.adapter: goes with model.net=dit or unet and model.causal=False; set it to none")
    if config.model.labels and not network.labels:
        raise ValueError("model.labels: goes with model.net=dit; set it to 0")
    if config.data.labels != "none":
        return  # their number is found in the data
    count = label_count(config.data) if config.model.labels else 0
    if config.model.labels != count:
        raise ValueError(f"model.labels: {config.data.source} has {count}; pass --config.model.labels={count}")


def self_conditioning(config: ConfigDict, net: nn.Module, process: MaskedProcess) -> SoftEmbedding | None:
    """The self-conditioning input that a prediction leaves for this network; None without an adapter."""
    width = network_of(config).width
    if config.memory.adapter == "none" or width is None:
        return None
    codes = process.encode(jnp.arange(process.vocabulary)[None])

    def table(params) -> Any:
        return net.apply({"params": params}, codes, method="token_table")

    return SoftEmbedding(process, table, width(config), config.model.dtype)


def trained_denoiser(config: ConfigDict, system: System) -> Denoiser:
    """The denoiser in training, of two passes at the rate `memory.rate` where the network is self-conditioned."""
    if system.errors:
        raise ValueError("predictor.kind: a predictor learns by objective.name=errors; set it, or the kind to none")
    if system.self_conditioning and config.memory.rate != 0:
        return randomly_self_conditioned(system.denoiser, system.self_conditioning, config.memory.rate)
    return system.denoiser


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first the one of the table's plain columns (self-conditioned: of two passes).

    Raises:
      ValueError: for one that does not fit the network.
    """
    noise = "bound_marginal" if config.codec.digits > 1 else "bound_continuous"
    return named_estimators(config, noise + ("_passes_2" if config.memory.adapter != "none" else ""))


def named_estimators(config: ConfigDict, default: str) -> list[str]:
    """The estimators of `evaluate`, "auto" being `default`; raises ValueError for one that does not fit."""
    names = estimator_names(config, default, lambda name: estimator(split_passes(name)[0]))
    for name in names:
        if split_passes(name)[1] > 1 and config.memory.adapter == "none":
            raise ValueError(f"evaluate.estimator: {name} is for a self-conditioned network; set memory.adapter")
        if (name in CAUSAL_ESTIMATORS) != config.model.causal:
            raise ValueError(f"evaluate.estimator: {name} does not fit model.causal={config.model.causal}; use auto")
    return names


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """The estimator of that name; its passes are those of the denoiser."""
    return estimator(split_passes(name)[0])


def batch(config: ConfigDict) -> dict:
    """Shapes of one training batch."""
    size = config.train.batch
    rows = {"tokens": rows_like(size, config.data.length, dtype=jnp.int32)}
    rows["weights"] = rows_like(size, config.data.length, dtype=jnp.float32)
    return rows | ({"label": rows_like(size, dtype=jnp.int32)} if config.model.labels else {})


def sampler(config: ConfigDict, system: System) -> Callable:
    """`sample(params, keys, prompt, label=None)` for prompts [B, sample.length or data.length]."""
    return masked_sampling.windowed_sampler(config, system)


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of one batch, with all its steps; `helper` is the masked planner of `sample.remask.planner_row`."""
    system = error_prediction.planned(system, helper) if helper else system
    size, length = config.sample.batch, config.sample.length or config.data.length
    turns = masked_sampling.network_evaluations(config)
    label = rows_like(size, dtype=jnp.int32) if config.model.labels else None
    call = Call(
        name=f"sampler, {turns} evaluations",
        function=masked_sampling.windowed_sampler(config, system, scanned=True),
        params=(system.init,),
        rows=(keys_like(size), rows_like(size, length, dtype=jnp.int32), label),
        turns=turns,
        taken=masked_sampling.guided_share(config, system),
    )
    return [call]
