"""Uniform-state diffusion (UDLM) over tokens: process, denoiser, objective, estimators and sampler of a config."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.likelihood.uniform import estimator
from diffusion.objectives.uniform import UniformNelbo
from diffusion.processes.uniform import UniformDiffusion
from diffusion.readout import SplitDenoiser
from diffusion.schedules.masking import sigma
from experiments.families import masked, uniform_sampling
from experiments.families.base import System, estimator_names, lookup
from experiments.families.networks import network_of

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "likelihood"
DOMAINS = masked.DOMAINS
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "nelbo": lambda config, system: UniformNelbo(
        system.denoiser, uniform_sampling.process_of(system), config.objective.minimum_time
    ),
}
batch = masked.batch
sampler = uniform_sampling.sampler
calls = uniform_sampling.calls


def check(config: ConfigDict) -> None:
    """Raise ValueError for what is there for masks alone."""
    if config.model.net != "dit":
        raise ValueError(f"model.net: {config.model.net} reads masked tokens; process.name=uniform goes with dit")
    settings = config.codec.digits, config.memory.adapter, config.predictor.kind, config.data.packing == "padded"
    if settings != (1, "none", "none", False):
        raise ValueError(
            "process.name: uniform goes with codec.digits=1, memory.adapter=none, predictor.kind=none and unpadded data"
        )


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config; the network's classes are the tokens alone, without a mask."""
    check(config)
    masked.check_conditioning(config)
    schedule = lookup(masked.SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    noise = UniformDiffusion(vocabulary, schedule)
    net = network_of(config).make(config, vocabulary, noise)

    def features(params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
        level = sigma(schedule, time) if config.model.time_conditioning else None
        label: dict[str, Any] = {"label": cond} if config.model.labels else {}
        return net.apply({"params": params}, noisy, level, **label, keys=keys, method="head_input")

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length), jnp.int32))["params"]

    denoiser = SplitDenoiser(features, masked.logits_of(net), config.objective.pieces)
    return System(net=net, process=noise, denoiser=denoiser, init=init, length=config.data.length, classes=vocabulary)


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first bound_uniform; raises ValueError for one of another process."""
    return estimator_names(config, "bound_uniform", estimator)


def estimate(config: ConfigDict, system: System, name: str) -> Callable:
    """The estimator of that name."""
    return estimator(name)
