"""Block diffusion (BD3-LM) over tokens: process, denoiser, objectives, estimators and sampler of a config."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial
from ml_collections import ConfigDict

from diffusion.likelihood.blocks import estimator
from diffusion.nets.block_masks import BlockCausal, NoisyAndClean
from diffusion.nets.dit import DiT
from diffusion.objectives.blocks import BlockNelbo
from diffusion.processes.blocks import BlockDiffusion
from diffusion.readout import SplitDenoiser
from diffusion.sampling.masked.block_sampler import sample_blocks
from experiments.families import masked, masked_sampling
from experiments.families.base import Call, System, estimator_names, keys_like, lookup, rows_like
from experiments.families.networks import network_of

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "likelihood"
DOMAINS = masked.DOMAINS


def clipped(config: ConfigDict, system: System) -> Callable:
    """The loss between two mask levels; raises ValueError for levels outside of (0, 1]."""
    low, high = config.objective.levels
    if not 0 <= low < high <= 1:
        raise ValueError(f"objective.levels: needs 0 <= low < high <= 1, not ({low}, {high})")
    return BlockNelbo(system.denoiser, process_of(system), (max(low, config.objective.minimum_time), high))


OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "nelbo": clipped,
    "nelbo_reveal": lambda config, system: BlockNelbo(system.denoiser, process_of(system)),
}
batch = masked.batch


def process_of(system: System) -> BlockDiffusion:
    """The process of a model of this family."""
    assert isinstance(system.process, BlockDiffusion)
    return system.process


def check(config: ConfigDict) -> None:
    """Raise ValueError for a block that does not divide the length, and for what other processes alone have."""
    block, length = config.process.block, config.data.length
    if block < 1 or length % block:
        raise ValueError(f"process.block: must divide data.length = {length}, not {block}")
    if config.model.net != "dit":
        raise ValueError(f"model.net: {config.model.net} has no masks of attention; process.name=blocks goes with dit")
    settings = config.codec.digits, config.memory.adapter, config.predictor.kind, config.model.labels
    if settings != (1, "none", "none", 0):
        raise ValueError(
            "process.name: blocks goes with codec.digits=1, memory.adapter=none, predictor.kind=none and model.labels=0"
        )
    if config.model.time_conditioning:
        raise ValueError("model.time_conditioning: process.name=blocks has one level per block; set it to False")


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config; the network reads the noisy and then the clean sequence."""
    check(config)
    length = config.data.length
    schedule = lookup(masked.SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    noise = BlockDiffusion(vocabulary, schedule, config.process.block)
    classes = vocabulary + (2 if config.data.packing == "padded" else 1)
    net = network_of(config).make(config, classes, noise).clone(mask=NoisyAndClean(length, noise.block))
    positions = jnp.tile(jnp.arange(length), 2)

    def features(params, noisy, time, cond=None, memory=None, *, keys=None):
        both: Any = net.apply({"params": params}, noisy, positions=positions, keys=keys, method="head_input")
        return both[:, :length]

    def init(key):
        return net.init(key, jnp.zeros((1, 2 * length), jnp.int32))["params"]

    denoiser = SplitDenoiser(features, masked.logits_of(net), config.objective.pieces)
    return System(net=net, process=noise, denoiser=denoiser, init=init, length=length, classes=classes)


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first bound_blocks; raises ValueError for one of another process."""
    return estimator_names(config, "bound_blocks", estimator)


def estimate(config: ConfigDict, system: System, name: str) -> Callable:
    """The estimator of that name."""
    return estimator(name)


def block_config(config: ConfigDict) -> ConfigDict:
    """The config of the sampler of one block."""
    inner = config.copy_and_resolve_references()
    inner.data.length, inner.sample.length = config.process.block, 0
    return inner


def sampler(config: ConfigDict, system: System, scanned: bool = False) -> Callable:
    """`sample(params, keys, prompt, label=None)` for prompts [B, sample.length or data.length].

    `sample.steps` are those of one block. Texts longer than data.length attend to the last data.length positions.
    `scanned` is that of `masked_sampler`.
    """
    options, process = config.sample, process_of(system)
    for name in ("suffix", "infill"):
        if options[name]:
            raise ValueError(f"sample.{name}: block diffusion cannot read what follows; leave it out")
    length = options.length or config.data.length
    if length % process.block:
        raise ValueError(f"sample.length: {length} must be a multiple of process.block = {process.block}")
    window = config.data.length if length > config.data.length else 0
    assert isinstance(system.net, DiT)
    net = system.net.clone(mask=BlockCausal(process.block, window))

    def extended(params, tokens, start, cache) -> Any:
        return net.apply({"params": params}, tokens, start, cache, method="extend")

    def features(params, noisy, time, cond=None, memory=None, *, keys=None):
        assert cond is not None  # the start of the block, and the cache
        return extended(params, noisy, *cond)[0]

    denoiser = SplitDenoiser(features, masked.logits_of(net))
    one = masked_sampling.masked_sampler(block_config(config), replace(system, denoiser=denoiser), scanned=scanned)

    def sample(one, params, keys, prompt, label=None):
        return sample_blocks(
            lambda keys, piece, cond: one(params, keys, piece, cond),
            lambda tokens, start, cache: extended(params, tokens, start, cache)[1],
            net.init_cache(len(prompt), length),
            keys,
            prompt,
            process.block,
        )

    return Partial(sample, one)


def evaluations(config: ConfigDict) -> int:
    """Evaluations of one sequence: those of every block's sampler, and one that writes its keys and values."""
    blocks = (config.sample.length or config.data.length) // config.process.block
    return blocks * (masked_sampling.network_evaluations(block_config(config)) + 1)


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of one batch, with all its blocks."""
    size, length, turns = config.sample.batch, config.sample.length or config.data.length, evaluations(config)
    call = Call(
        name=f"sampler, {turns} evaluations",
        function=sampler(config, system, scanned=True),
        params=(system.init,),
        rows=(keys_like(size), rows_like(size, length, dtype=jnp.int32)),
        turns=turns,
    )
    return [call]
