"""ConfigDict to objects: the only place that maps names to functions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from diffusion import schedules
from diffusion.corrupt.masking import Masking
from diffusion.nets.dit import DiT, flops_per_token
from diffusion.objectives.autoregressive import NextToken
from diffusion.objectives.nelbo import Nelbo
from diffusion.objectives.reveal import RevealNelbo
from diffusion.sampling import select
from diffusion.sampling.autoregressive import AutoregressiveSampler
from diffusion.sampling.blocks import semi_autoregressive
from diffusion.sampling.draw import Draw
from diffusion.sampling.grid import grid
from diffusion.sampling.masked import MaskedSampler, Samples
from diffusion.train.loop import Settings
from diffusion.train.optimizer import adamw
from diffusion.types import Denoiser, Keys, Params, Tokens

SCHEDULES: dict[str, Callable[[ConfigDict], schedules.Schedule]] = {
    "log_linear": lambda config: schedules.LogLinear(config.epsilon),
    "linear": lambda config: schedules.Linear(),
    "cosine": lambda config: schedules.Cosine(),
    "polynomial": lambda config: schedules.Polynomial(config.power),
    "geometric": lambda config: schedules.Geometric(config.low, config.high),
}

OBJECTIVES = {
    "nelbo": lambda config, system: Nelbo(system.denoiser, system.process, config.minimum_time),
    "nelbo_reveal": lambda config, system: RevealNelbo(system.denoiser, system.process),
    "autoregressive": lambda config, system: NextToken(system.denoiser, system.process.mask_id),
}

POLICIES: dict[str, Callable[[ConfigDict, schedules.Schedule], select.Policy]] = {
    "ancestral": lambda config, schedule: select.Policy(
        select.race_step if config.precision == "mdlm_float32" else select.ancestral_step
    ),
    "random_order": lambda config, schedule: select.Policy(select.random_order_step),
    "confidence": lambda config, schedule: select.Policy(select.confidence_step(config.noise)),
    "first_hitting": lambda config, schedule: select.first_hitting(schedule),
}


def pick(table: dict[str, Any], name: str, field: str) -> Any:
    """Look a name up; raises ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(sorted(table))}")
    return table[name]


@dataclass(frozen=True)
class System:
    """A network, its process, and how to start it."""

    net: DiT
    process: Masking
    denoiser: Denoiser
    init: Callable[[jax.Array], Params]
    length: int
    classes: int


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config over `vocabulary` tokens; the mask comes after them, then padding."""
    classes = vocabulary + (2 if config.data.packing == "padded" else 1)
    schedule = pick(SCHEDULES, config.process.schedule, "process.schedule")(config.process)
    fields = config.model.to_dict()
    time_conditioning = fields.pop("time_conditioning")
    net = DiT(vocab_size=classes, **fields)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        sigma = schedules.sigma(schedule, time) if time_conditioning else None
        return net.apply({"params": params}, noisy, sigma, keys=keys)

    def init(key):
        return net.init(key, jnp.zeros((1, config.data.length), jnp.int32))["params"]

    return System(net, Masking(vocabulary, schedule), denoiser, init, config.data.length, classes)


def objective(config: ConfigDict, system: System) -> Callable:
    """The training objective; raises ValueError when network and objective do not fit."""
    if (config.objective.name == "autoregressive") != config.model.causal:
        raise ValueError("objective.name: autoregressive goes with model.causal=True, and nothing else does")
    return pick(OBJECTIVES, config.objective.name, "objective.name")(config.objective, system)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW as the config says."""
    fields = config.optimizer.to_dict()
    pick(dict.fromkeys(("constant", "cosine", "inverse_sqrt")), fields["decay"], "optimizer.decay")
    return adamw(peak=fields.pop("learning_rate"), steps=config.train.steps, **fields)


def settings(config: ConfigDict) -> Settings:
    """The loop's settings; raises ValueError for counts below 1."""
    fields = {name: value for name, value in config.train.items() if name != "evaluate_batches"}
    for name, value in fields.items():
        if value <= 0:
            raise ValueError(f"train.{name}: must be positive, not {value}")
    return Settings(**fields)


def sampler(config: ConfigDict, system: System) -> Callable[[Params, Keys, Tokens], Samples]:
    """`sample(params, keys, prompt)`: the sampler of a config for prompts [B, sample.length or data.length]."""
    options = config.sample
    total = options.length or config.data.length
    draw = Draw(system.process.mask_id, options.precision, options.nucleus_rule)
    pick(dict.fromkeys(("exact", "mdlm_float32")), options.precision, "sample.precision")
    pick(dict.fromkeys(("off", "inclusive", "standard")), options.nucleus_rule, "sample.nucleus_rule")
    pick(dict.fromkeys(("argmax", "draw", "none")), options.final, "sample.final")
    schedule = system.process.schedule
    first_hitting = options.policy == "first_hitting"
    steps = config.data.length if first_hitting else options.steps
    table = grid(
        schedule,
        steps,
        config.data.length,
        end=0.0 if first_hitting else options.end,
        temperature=options.temperature,
        nucleus=options.nucleus,
    )
    if config.model.causal:
        if total != config.data.length:
            raise ValueError(f"sample.length: an autoregressive model writes data.length = {config.data.length} tokens")
        causal = AutoregressiveSampler(
            lambda size: system.net.init_cache(size, total),
            lambda params, *inputs: system.net.apply({"params": params}, *inputs, method="decode"),
            draw,
            system.process.mask_id,
        )
        return lambda params, keys, prompt: causal(params, keys, prompt, options.temperature, options.nucleus)
    policy = pick(POLICIES, options.policy, "sample.policy")(options, schedule)
    final = "none" if first_hitting else options.final
    window = partial(MaskedSampler(system.denoiser, system.process, policy, draw, final), grid=table)
    if total == config.data.length:
        return window
    stride = options.stride or config.data.length // 2
    return lambda params, keys, prompt: semi_autoregressive(
        partial(window, params), keys, prompt, config.data.length, stride
    )


def training_flops(config: ConfigDict, classes: int) -> float:
    """Analytic floating-point operations of one optimizer step: three forward passes' worth a token."""
    model = config.model
    token = flops_per_token(
        hidden=model.hidden,
        blocks=model.blocks,
        vocab_size=classes,
        length=config.data.length,
        mlp_ratio=model.mlp_ratio,
        causal=model.causal,
    )
    return 3 * token * config.train.batch * config.data.length
