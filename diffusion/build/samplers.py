"""The sampler of a config."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion.build.names import pick
from diffusion.build.systems import System
from diffusion.objectives.nelbo import Process
from diffusion.sampling import select
from diffusion.sampling.autoregressive import AutoregressiveSampler
from diffusion.sampling.blocks import semi_autoregressive
from diffusion.sampling.digits import DigitDraw, ancestral_digits, rate_corrector, sample_tokens
from diffusion.sampling.draw import Draw
from diffusion.sampling.grid import Grid, grid, warped
from diffusion.sampling.masked import MaskedSampler, Samples

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


def sampler(config: ConfigDict, system: System) -> Callable[..., Samples]:
    """`sample(params, keys, prompt, label=None)` for prompts [B, sample.length or data.length], as the config says.

    A network with model.labels is told `label` [B] of every example.
    """
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

    def windows(params, keys, prompt, label=None):
        def one(keys, piece):
            return window(params, keys, piece, label)

        samples = semi_autoregressive(one, keys, prompt, length, stride)
        # A code of no token is drawn anew where the next window overlaps: those that are left count.
        left = jnp.sum(samples.tokens == system.process.vocabulary, axis=1)
        return samples._replace(invalid=left if system.process.digits > 1 else samples.invalid)

    return windows


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
    return lambda params, keys, prompt, label=None: causal(params, keys, prompt, options.temperature, options.nucleus)


def masked_sampler(config: ConfigDict, system: System) -> Callable:
    """The scan over one window, on tokens or on their digits."""
    options, process = config.sample, system.process
    policy = pick(POLICIES, options.policy, "sample.policy")(options, process)
    steps, end, final = sampling_steps(config), options.end, options.final
    pick(dict.fromkeys(("reuse", "null")), options.memory, "sample.memory")
    recall = system.recall if options.memory == "reuse" else None
    if options.cache and config.model.time_conditioning:
        raise ValueError("sample.cache: a network that reads time predicts anew at every step; set it to False")
    if options.policy == "first_hitting":
        end, final = 0.0, "none"
    table = sampling_grid(config, process, steps, end)
    if options.corrector:
        # First hitting knows when each position is revealed, once: what is masked again would stay so.
        if len(options.corrector) != 2 or options.policy == "first_hitting":
            raise ValueError("sample.corrector: must be (scale, power), with any sample.policy but first_hitting")
        times = warped(np.linspace(1.0, end, steps + 1), options.warp)
        policy = replace(policy, correct=rate_corrector(process.schedule, times, *options.corrector, process.mask_id))
    if process.digits == 1:
        draw = Draw(process.mask_id, options.precision, options.nucleus_rule)
        return conditional(MaskedSampler(system.denoiser, process, policy, draw, final, recall, options.cache), table)
    if options.precision != "exact":
        raise ValueError("sample.precision: mdlm_float32 is a rule for whole tokens; digits are drawn exact")
    token = Draw(process.codec.vocabulary, options.precision, options.nucleus_rule)
    draw = DigitDraw(process, token, independent=options.digits_draw == "marginal")
    digits = MaskedSampler(system.denoiser, process, policy, draw, final, recall, options.cache)
    return conditional(partial(sample_tokens, digits, process), table)


def conditional(sample: Callable[..., Samples], table: Grid) -> Callable[..., Samples]:
    """`sample(params, keys, prompt, label)` on one grid."""
    return lambda params, keys, prompt, label=None: sample(params, keys, prompt, grid=table, cond=label)


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
