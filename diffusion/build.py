"""ConfigDict to objects: the only place that maps names to functions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion import schedules
from diffusion.codecs import Digits, shuffled
from diffusion.corrupt.masking import Masking
from diffusion.corrupt.partial import PartialMasking
from diffusion.data.arrays import image_shape, label_count
from diffusion.evaluate.likelihood import CAUSAL, estimator
from diffusion.nets import classifier, mlp, unet
from diffusion.nets.digit_embedding import DigitEmbedding
from diffusion.nets.dit import DiT, flops_per_token
from diffusion.objectives.autoregressive import NextToken
from diffusion.objectives.classification import Classification
from diffusion.objectives.cross_entropy import CrossEntropy
from diffusion.objectives.nelbo import Nelbo, Process
from diffusion.objectives.reveal import RevealNelbo
from diffusion.sampling import select
from diffusion.sampling.autoregressive import AutoregressiveSampler
from diffusion.sampling.blocks import semi_autoregressive
from diffusion.sampling.digits import DigitDraw, ancestral_digits, rate_corrector, sample_tokens
from diffusion.sampling.draw import Draw
from diffusion.sampling.grid import Grid, grid, warped
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
    "nelbo": lambda config, system: Nelbo(system.denoiser, system.process, config.minimum_time, config.target),
    "nelbo_reveal": lambda config, system: RevealNelbo(system.denoiser, system.process, config.target),
    "autoregressive": lambda config, system: NextToken(system.denoiser, system.process.mask_id),
    "cross_entropy": lambda config, system: CrossEntropy(system.denoiser, system.process, values_of(system.process)),
    "classification": lambda config, system: Classification(system.denoiser),
}

POLICIES: dict[str, Callable[[ConfigDict, Process], select.Policy]] = {
    "ancestral": lambda config, process: select.Policy(ancestral(config, process)),
    "random_order": lambda config, process: select.Policy(select.random_order_step),
    "confidence": lambda config, process: select.Policy(select.confidence_step(config.noise)),
    "first_hitting": lambda config, process: select.first_hitting(process.schedule),
}


def ancestral(config: ConfigDict, process: Process) -> Callable:
    """MDLM's reverse step on tokens, on digits, or as the low-precision race of the public code."""
    if process.digits > 1:
        return ancestral_digits(process.digits, config.chunk_point)
    return select.race_step if config.precision == "mdlm_float32" else select.ancestral_step


def pick(table: dict[str, Any], name: str, field: str) -> Any:
    """Look a name up; raises ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"{field}: unknown {name!r}; known: {', '.join(sorted(table))}")
    return table[name]


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
        merge, shared = config.codec.merge, config.codec.shared
        embedder = DigitEmbedding(process.mask_id, process.digits, config.model.hidden, merge, shared)
    return DiT(vocab_size=classes, embedder=embedder, **fields)


def values_of(process: Process) -> int:
    """Tokens of the vocabulary, without mask and padding."""
    return process.codec.vocabulary if process.digits > 1 else process.mask_id


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


def objective(config: ConfigDict, system: System) -> Callable:
    """The training objective; raises ValueError when network and objective do not fit."""
    if (config.objective.name == "autoregressive") != config.model.causal:
        raise ValueError("objective.name: autoregressive goes with model.causal=True, and nothing else does")
    pick(dict.fromkeys(("marginal", "joint")), config.objective.target, "objective.target")
    return pick(OBJECTIVES, config.objective.name, "objective.name")(config.objective, system)


def estimators(config: ConfigDict) -> list[str]:
    """The names of the estimators to run, the one that feeds the table's plain columns first.

    Raises:
      ValueError: for one that does not fit the network.
    """
    first = config.evaluate.estimator
    if first == "auto":
        noise = "bound_marginal" if config.codec.digits > 1 else "bound_continuous"
        first = "nll_autoregressive" if config.model.causal else noise
    names = list(dict.fromkeys([first, *config.evaluate.also]))
    for name in names:
        estimator(name)
        if (name in CAUSAL) != config.model.causal:
            raise ValueError(f"evaluate.estimator: {name} does not fit model.causal={config.model.causal}; use auto")
    return names


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
    options, length = config.sample, config.data.length
    pick(dict.fromkeys(("exact", "mdlm_float32")), options.precision, "sample.precision")
    pick(dict.fromkeys(("off", "inclusive", "standard")), options.nucleus_rule, "sample.nucleus_rule")
    pick(dict.fromkeys(("argmax", "draw", "none")), options.final, "sample.final")
    pick(dict.fromkeys(("token", "marginal")), options.digits_draw, "sample.digits_draw")
    total = options.length or length
    if config.model.causal:
        return causal_sampler(config, system, total)
    window = masked_sampler(config, system)
    if total == length:
        return window
    stride = options.stride or length // 2
    return lambda params, keys, prompt: semi_autoregressive(partial(window, params), keys, prompt, length, stride)


def causal_sampler(config: ConfigDict, system: System, total: int) -> Callable:
    """Left to right, with a cache."""
    options = config.sample
    if total != config.data.length:
        raise ValueError(f"sample.length: an autoregressive model writes data.length = {config.data.length} tokens")
    causal = AutoregressiveSampler(
        lambda size: system.net.init_cache(size, total),
        lambda params, *inputs: system.net.apply({"params": params}, *inputs, method="decode"),
        Draw(system.process.mask_id, options.precision, options.nucleus_rule),
        system.process.mask_id,
    )
    return lambda params, keys, prompt: causal(params, keys, prompt, options.temperature, options.nucleus)


def masked_sampler(config: ConfigDict, system: System) -> Callable:
    """The scan over one window, on tokens or on their digits."""
    options, process = config.sample, system.process
    policy = pick(POLICIES, options.policy, "sample.policy")(options, process)
    steps, end, final = sampling_steps(config), options.end, options.final
    if options.policy == "first_hitting":
        end, final = 0.0, "none"
    table = sampling_grid(config, process, steps, end)
    if options.corrector:
        times = warped(np.linspace(1.0, end, steps + 1), options.warp)
        policy = replace(policy, correct=rate_corrector(process.schedule, times, *options.corrector, process.mask_id))
    if process.digits == 1:
        draw = Draw(process.mask_id, options.precision, options.nucleus_rule)
        return partial(MaskedSampler(system.denoiser, process, policy, draw, final), grid=table)
    if options.precision != "exact":
        raise ValueError("sample.precision: mdlm_float32 is a rule for whole tokens; digits are drawn exact")
    token = Draw(process.codec.vocabulary, options.precision, options.nucleus_rule)
    draw = DigitDraw(process, token, independent=options.digits_draw == "marginal")
    return partial(sample_tokens, MaskedSampler(system.denoiser, process, policy, draw, final), process, grid=table)


def sampling_steps(config: ConfigDict) -> int:
    """Steps of one window: sample.steps, or one a position for a policy that goes event by event."""
    positions = config.data.length * config.codec.digits
    return positions if config.sample.policy == "first_hitting" else config.sample.steps


def sampling_grid(config: ConfigDict, process: Process, steps: int, end: float) -> Grid:
    """The time grid of a config."""
    options = config.sample
    return grid(
        process.schedule,
        steps,
        config.data.length * process.digits,
        end=end,
        temperature=options.temperature,
        nucleus=options.nucleus,
        ramp=tuple(options.temperature_ramp),
        warp=tuple(options.warp),
    )


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
