"""Sampling of uniform-state diffusion, plain or under a reward of the samples: methods, checks and programs."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from diffusion.metrics.molecules import label_pairs
from diffusion.processes.uniform import UniformDiffusion
from diffusion.sampling.ancestral import AncestralSampler, Steps, equal_steps
from diffusion.sampling.gaussian.steering import Steering
from diffusion.sampling.uniform_lidar import KERNELS, Lookahead, lookahead_guide
from diffusion.types import Keys, Symbols
from experiments.families.base import Call, System, keys_like, lookup, rows_like

METHODS = ("plain", "best_of", "steering", "lidar")
# Options of masked samplers that have no meaning without masks, with the values that leave them out.
UNUSED = dict(policy="ancestral", nucleus=1.0, precision="exact", corrector=(), warp=())
LABELS = 16  # number of kinds of labels that `calls` assumes without reading data


def process_of(system: System) -> UniformDiffusion:
    """The process of a model of this family."""
    assert isinstance(system.process, UniformDiffusion)
    return system.process


def check(config: ConfigDict) -> None:
    """Raise ValueError for an option of masked samplers, and a name or number that no method can work with."""
    options, uniform = config.sample, config.sample.uniform
    for name, value in UNUSED.items():
        setting = tuple(options[name]) if isinstance(value, tuple) else options[name]
        if setting != value:
            raise ValueError(f"sample.{name}: must be {value!r} for process.name=uniform, not {setting!r}")
    if (options.length or config.data.length) != config.data.length:
        raise ValueError(f"sample.length: process.name=uniform writes data.length = {config.data.length} tokens")
    lookup(dict.fromkeys(("draw", "argmax")), options.final, "sample.final")
    lookup(dict.fromkeys(METHODS), uniform.method, "sample.uniform.method")
    lookup(dict.fromkeys(KERNELS), uniform.lookahead.kernel, "sample.uniform.lookahead.kernel")
    if uniform.method == "steering" and options.batch % uniform.steering.particles:
        raise ValueError(
            f"sample.uniform.steering.particles: {uniform.steering.particles} do not divide "
            f"sample.batch={options.batch}"
        )
    if uniform.method == "lidar" and config.model.labels:
        raise ValueError("sample.uniform.method: lidar shares lookahead samples over classes; set model.labels to 0")
    steering(config, jnp.zeros((1, 1)))


def steps_of(config: ConfigDict, system: System, steps: int) -> Steps:
    """The grid of `steps` equal steps, and one more to clean data."""
    options = config.sample
    return equal_steps(process_of(system).schedule, steps, end=options.end, temperature=options.temperature)


def steering(config: ConfigDict, labels: Float[Array, "K G"]) -> Steering:
    """FK steering by the pairs of equal labels in a clean estimate."""
    options = config.sample.uniform.steering

    def reward(clean: Symbols, carry: None) -> Float[Array, " B"]:
        return label_pairs(clean, labels)

    return Steering(reward, options.particles, options.strength, options.potential, options.adaptive)


def sampler(config: ConfigDict, system: System, trace: int = 0) -> Callable:
    """`sample(params, keys, prompt, label=None, given=None)` for prompts [B, data.length]; masks are what is free.

    `given` is what the method reads besides: `Lookahead` for lidar, the labels [K, G] of tokens for steering. The
    states of the first `trace` examples are returned too.
    """
    check(config)
    rows, uniform = steps_of(config, system, config.sample.steps), config.sample.uniform

    def sample(params, keys: Keys, prompt: Symbols, label=None, given: Any = None):
        guide = resample = None
        if uniform.method == "lidar":
            ahead = uniform.lookahead
            guide = lookahead_guide(process_of(system), given, ahead.strength, ahead.scale, ahead.kernel)
        if uniform.method == "steering":
            resample = steering(config, given)
        draw = AncestralSampler(system.denoiser, process_of(system), config.sample.final, guide, resample, trace)
        return draw(params, keys, prompt, rows, label)

    return sample


def lookahead_sampler(config: ConfigDict, system: System) -> Callable:
    """The plain sampler in `sample.uniform.lookahead.steps` steps."""
    rows = steps_of(config, system, config.sample.uniform.lookahead.steps)
    draw = AncestralSampler(system.denoiser, process_of(system), config.sample.final)
    return lambda params, keys, prompt, label=None: draw(params, keys, prompt, rows, label)


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of one batch, with all its steps and the last one to clean data, and lookahead samples before it."""
    uniform, classes = config.sample.uniform, system.classes
    size, length, extra = config.sample.batch, config.data.length, config.sample.end > 0
    label = rows_like(size, dtype=jnp.int32) if config.model.labels else None
    rows = keys_like(size), rows_like(size, length, dtype=jnp.int32), label

    def call(name: str, function: Callable, steps: int, *scalars) -> Call:
        turns = steps + extra
        return Call(
            name=f"{name}, {turns} evaluations",
            function=function,
            params=(system.init,),
            rows=rows,
            scalars=scalars,
            turns=turns,
        )

    if uniform.method == "lidar":
        particles = uniform.lookahead.particles
        ahead = Lookahead(jnp.zeros((particles, length), jnp.int32), jnp.zeros(particles))
        return [
            call("lookahead", lookahead_sampler(config, system), uniform.lookahead.steps),
            call("sampler", sampler(config, system), config.sample.steps, ahead),
        ]
    labels = (jnp.zeros((classes, LABELS)),) if uniform.method == "steering" else ()
    return [call("sampler", sampler(config, system), config.sample.steps, *labels)]
