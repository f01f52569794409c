"""Uniform-state diffusion (UDLM) over tokens: process, denoiser, objective, estimators and sampler of a config."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.likelihood.uniform import estimator
from diffusion.objectives.uniform import UniformNelbo
from diffusion.processes.uniform import UniformDiffusion
from diffusion.sampling.ancestral import AncestralSampler, equal_steps
from diffusion.schedules.masking import sigma
from experiments.families import masked
from experiments.families.base import Call, System, keys_like, lookup, rows_like
from experiments.families.networks import NETWORKS

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "likelihood"
DOMAINS = masked.DOMAINS
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "nelbo": lambda config, system: UniformNelbo(system.denoiser, system.replacing, config.objective.minimum_time),
}
batch = masked.batch
# Options of masked samplers that have no meaning without masks, with the values that leave them out.
UNUSED = dict(policy="ancestral", nucleus=1.0, precision="exact", corrector=(), warp=())


def check(config: ConfigDict) -> None:
    """Raise ValueError for what is there for masks alone."""
    if config.model.net != "dit":
        raise ValueError(f"model.net: {config.model.net} reads masked tokens; process.name=uniform goes with dit")
    given = config.codec.digits, config.memory.adapter, config.predictor.kind, config.data.packing == "padded"
    if given != (1, "none", "none", False):
        raise ValueError(
            "process.name: uniform goes with codec.digits=1, memory.adapter=none, predictor.kind=none and unpadded data"
        )


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config; the network's classes are the tokens alone, without a mask."""
    check(config)
    masked.check_conditioning(config)
    schedule = lookup(masked.SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    noise = UniformDiffusion(vocabulary, schedule)
    net = NETWORKS[config.model.net].make(config, vocabulary, noise)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        level = sigma(schedule, time) if config.model.time_conditioning else None
        label: dict[str, Any] = {"label": cond} if config.model.labels else {}
        return net.apply({"params": params}, noisy, level, **label, keys=keys)

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length), jnp.int32))["params"]

    return System(net=net, process=noise, denoiser=denoiser, init=init, length=config.data.length, classes=vocabulary)


def objective(config: ConfigDict, system: System) -> Callable:
    """The bound of UDLM."""
    return OBJECTIVES[config.objective.name](config, system)


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first bound_uniform; raises ValueError for one of another process."""
    first = "bound_uniform" if config.evaluate.estimator == "auto" else config.evaluate.estimator
    names = list(dict.fromkeys([first, *config.evaluate.also]))
    for name in names:
        estimator(name)
    return names


def estimate(config: ConfigDict, system: System, name: str) -> Callable:
    """The estimator of that name."""
    return estimator(name)


def sampler(config: ConfigDict, system: System) -> Callable:
    """`sample(params, keys, prompt, label=None)` for prompts [B, data.length]; masks in a prompt are what is free."""
    options, length = config.sample, config.data.length
    for name, value in UNUSED.items():
        given = tuple(options[name]) if isinstance(value, tuple) else options[name]
        if given != value:
            raise ValueError(f"sample.{name}: must be {value!r} for process.name=uniform, not {given!r}")
    if (options.length or length) != length:
        raise ValueError(f"sample.length: process.name=uniform writes data.length = {length} tokens")
    lookup(dict.fromkeys(("draw", "argmax")), options.final, "sample.final")
    rows = equal_steps(system.replacing.schedule, options.steps, end=options.end, temperature=options.temperature)
    sample = AncestralSampler(system.denoiser, system.replacing, options.final)
    return lambda params, keys, prompt, label=None: sample(params, keys, prompt, rows, label)


def calls(config: ConfigDict, system: System, reward: System | None = None) -> list[Call]:
    """The sampler of one batch, with all its steps and the last one to clean data."""
    size, turns = config.sample.batch, config.sample.steps + (config.sample.end > 0)
    label = rows_like(size, dtype=jnp.int32) if config.model.labels else None
    call = Call(
        name=f"sampler, {turns} evaluations",
        function=sampler(config, system),
        params=(system.init,),
        rows=(keys_like(size), rows_like(size, config.data.length, dtype=jnp.int32), label),
        turns=turns,
    )
    return [call]
