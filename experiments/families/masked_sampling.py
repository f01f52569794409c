"""The sampler of masked diffusion that a config describes: policy, remasking rule, grid and windows."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from ml_collections import ConfigDict

from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked import policies, public_grids, remasking
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.grid import Grid, Window, grid, p2_mask_counts, padded, warp_times
from diffusion.sampling.masked.sampler import MaskedSampler, Samples
from diffusion.sampling.masked.subtokens import SubtokenDraw, rate_corrector, sample_tokens
from diffusion.sampling.masked.windows import check_stride, semi_autoregressive
from diffusion.schedules.masking import Loop
from diffusion.types import MaskedProcess, Schedule
from experiments.families.base import System, lookup

POLICIES: dict[str, Callable[[ConfigDict, MaskedProcess], policies.Policy]] = {
    "ancestral": lambda config, process: policies.Policy(
        ancestral(config, process), reads=ancestral_reads(config, process)
    ),
    "random_order": lambda config, process: policies.Policy(policies.random_order_step, reads="none"),
    "confidence": lambda config, process: policies.Policy(policies.confidence_step(config.noise), reads="masked"),
    "first_hitting": lambda config, process: policies.first_hitting(process.schedule),
    "remdm": lambda config, process: policies.Policy(policies.ancestral_step, reads="none"),
    "remdm_conf": lambda config, process: policies.confidence_remdm(),
    "star": lambda config, process: policies.Policy(
        policies.guided_step(math.inf, plain=ancestral(config, process)), reads=ancestral_reads(config, process)
    ),
    "gstar": lambda config, process: policies.Policy(
        policies.guided_step(config.remask.temperature, config.remask.adaptive, ancestral(config, process)),
        reads="masked",
    ),
    "confidence_star": lambda config, process: policies.confidence_star(
        config.remask.temperature, ancestral(config, process)
    ),
    "p2": lambda config, process: policies.Policy(
        policies.path_planning(config.remask.eta, plans(config), config.remask.scores == "random"),
        reads="masked" if plans(config) else "none" if config.remask.scores == "random" else "all",
    ),
}
RULES: dict[str, Callable[[float], remasking.Rule]] = {
    "cap": remasking.cap,
    "rescale": remasking.rescale,
    "star": lambda eta: remasking.star,
    "forward_backward": lambda eta: remasking.forward_backward,
    "discrete_flow": lambda eta: remasking.discrete_flow,
}
# Rules of the public code of ReMDM (sample.remask.public).
PUBLIC_RULES = {name: RULES[name] for name in ("cap", "rescale", "discrete_flow")}
PUBLIC_RULES["forward_backward"] = lambda eta: public_grids.forward_backward


def races(config: ConfigDict, process: MaskedProcess) -> bool:
    """Whether MDLM's reverse step is the low-precision race of the public code."""
    return config.precision == "mdlm_float32" and process.subtokens == 1


def ancestral(config: ConfigDict, process: MaskedProcess) -> Callable:
    """MDLM's reverse step, by coins or as the low-precision race of the public code."""
    return policies.race_step if races(config, process) else policies.ancestral_step


def ancestral_reads(config: ConfigDict, process: MaskedProcess) -> Literal["none", "masked"]:
    """The positions that `ancestral` reads: coins are tossed before the network is evaluated."""
    return "masked" if races(config, process) else "none"


def windowed_sampler(config: ConfigDict, system: System, scanned: bool = False) -> Callable[..., Samples]:
    """`sample(params, keys, prompt, label=None)` for prompts [B, sample.length or data.length].

    Longer sequences than data.length are drawn window by window. A class-conditional network reads `label` [B]. The
    other arguments are those of `masked_sampler`.
    """
    options, length = config.sample, window_length(config)
    window = masked_sampler(config, system, scanned=scanned)
    if (options.length or length) == length:
        return window
    stride = options.stride or length // 2
    check_stride(options.length, length, stride)

    def windows(window, params, keys, prompt, label=None):
        def one(keys, piece):
            return window(params, keys, piece, label)

        samples = semi_autoregressive(one, keys, prompt, length, stride)
        # A code of no token is drawn again where the next window overlaps; those that are left count.
        left = jnp.sum(samples.tokens == system.masking.vocabulary, axis=1)
        return samples._replace(invalid=left if system.masking.subtokens > 1 else samples.invalid)

    return Partial(windows, window)


def window_length(config: ConfigDict) -> int:
    """Tokens that are drawn at once: `data.length`, or fewer of a network that reads any number."""
    length, asked = config.data.length, config.sample.length
    if asked and asked < length and config.model.net != "dit":
        raise ValueError(f"sample.length: model.net={config.model.net} writes data.length = {length} tokens or more")
    return min(asked or length, length)


def masked_sampler(config: ConfigDict, system: System, trace: int = 0, scanned: bool = False) -> Callable:
    """The loop over one window, on tokens or on their digits, with the states of the first `trace` examples.

    The sampler is a pytree of its padded grid: compiled with itself as an argument, one program serves many numbers of
    steps. Where the turns are to be seen in the program (a trace, or `scanned`), it scans over a grid without padding.
    """
    options, process = config.sample, system.masking
    check_planning(options, process)
    policy = lookup(POLICIES, options.policy, "sample.policy")(options, process)
    steps, end, final = sampling_steps(config), options.end, options.final
    self_conditioning = system.self_conditioning if options.memory == "reuse" else None
    if options.policy == "first_hitting":
        end, final = 0.0, "none"
    table = sampling_grid(config, process, steps, end)
    if options.corrector:
        # First hitting knows when each position is revealed, once: what is masked again would stay so.
        if len(options.corrector) != 2 or options.policy == "first_hitting" or options.remask.public:
            raise ValueError(
                "sample.corrector: must be (scale, power), with any sample.policy but first_hitting, and "
                "sample.remask.public=False"
            )
        times = warp_times(np.linspace(1.0, end, steps + 1), options.warp)
        scale, power = options.corrector
        policy = replace(policy, correct=rate_corrector(process.schedule, times, scale, power, process.mask_id))
    errors = error_predictor(config, system)
    if not isinstance(process, PartialMaskedDiffusion):
        draw = Draw(
            process.mask_id,
            options.precision,
            options.nucleus_rule,
            noised=options.policy == "p2",
            margin=options.policy == "p2" and options.remask.scores == "top2",
            renormalized=options.policy in ("remdm_conf", "confidence_star"),
        )
        sampler = MaskedSampler(system.denoiser, process, policy, draw, final, self_conditioning, errors, trace)
        return conditional(sampler, table, bool(trace) or scanned)
    if options.precision != "exact":
        raise ValueError("sample.precision: mdlm_float32 is a rule for whole tokens; digits are drawn exact")
    token = Draw(process.codec.vocabulary, options.precision, options.nucleus_rule)
    draw = SubtokenDraw(process, token, independent=options.digits_draw == "marginal")
    digits = MaskedSampler(system.denoiser, process, policy, draw, final, self_conditioning, errors, trace)
    return conditional(partial(sample_tokens, digits, process), table, bool(trace) or scanned)


def conditional(sample: Callable[..., Samples], table: Grid, scanned: bool) -> Callable[..., Samples]:
    """`sample(params, keys, prompt, label)` on one grid, which is padded unless the program scans over it."""

    def on_grid(grid, steps, params, keys, prompt, label=None):
        return sample(params, keys, prompt, grid=grid, cond=label, steps=steps)

    return Partial(on_grid, table, None) if scanned else Partial(on_grid, padded(table), len(table.index))


def sampling_steps(config: ConfigDict) -> int:
    """Steps of one window: sample.steps, one per position for first hitting, or those of the public DFM corrector."""
    if config.sample.policy == "first_hitting":
        return window_length(config) * config.codec.digits
    times = public_times(config.sample)
    return config.sample.steps if times is None else len(times) - 1


def public_times(config: ConfigDict) -> np.ndarray | None:
    """Times of the public DFM corrector, where they are not equal steps; None elsewhere."""
    if config.remask.public and config.policy == "remdm" and config.remask.rule == "discrete_flow":
        return public_grids.discrete_flow_times(config.steps, config.end)
    return None


def public_levels(config: ConfigDict, schedule: Schedule) -> public_grids.StepLevels | None:
    """Mask levels of the public code of ReMDM, where the config asks for them; raises ValueError for other policies."""
    if not config.remask.public:
        return None
    if config.policy not in ("ancestral", "remdm", "remdm_conf"):
        raise ValueError(
            "sample.remask.public: only for sample.policy ancestral, remdm and remdm_conf; set it to False"
        )
    return public_grids.loop_levels(schedule) if isinstance(schedule, Loop) else public_grids.raw_levels


def network_evaluations(config: ConfigDict) -> int:
    """Evaluations of the network for one sequence, over all windows."""
    options, window = config.sample, window_length(config)
    steps = sampling_steps(config) + (options.policy != "first_hitting" and options.final != "none")
    windows = 1 + -(-((options.length or window) - window) // (options.stride or window // 2))
    return windows * steps


def plans(config: ConfigDict) -> bool:
    """Whether an error predictor or a masked planner scores the known positions of P2."""
    return bool(config.remask.planner or config.remask.planner_row)


def check_planning(config: ConfigDict, process: MaskedProcess) -> None:
    """Raise ValueError for a planner or scores of P2 that go with nothing else in the config."""
    remask = config.remask
    if remask.planner_row and (config.policy != "p2" or remask.planner or process.subtokens > 1):
        raise ValueError(
            "sample.remask.planner_row: goes with sample.policy=p2, sample.remask.planner=False and codec.digits=1; "
            "leave it empty"
        )
    if config.policy == "p2" and remask.scores != "log_prob" and (plans(config) or process.subtokens > 1):
        raise ValueError(
            f"sample.remask.scores: {remask.scores} goes with codec.digits=1 and without a planner, whose scores are "
            "log-probabilities; set it to log_prob"
        )


def error_predictor(config: ConfigDict, system: System) -> Callable | None:
    """The error predictor, for a policy that reads its logits; raises ValueError where there is none."""
    options = config.sample
    if not (options.policy == "gstar" or (options.policy == "p2" and plans(options))):
        return None
    if system.errors is None:
        raise ValueError(
            "sample.policy: gstar, and p2 with remask.planner, ask an error predictor; set predictor.kind, and sample "
            "from the row that trains it"
        )
    return system.errors.predict


def predictor_evaluations(config: ConfigDict, system: System) -> int:
    """Evaluations of the error predictor for one sequence."""
    if error_predictor(config, system) is None:
        return 0
    steps = sampling_steps(config)
    return int(sampling_grid(config, system.masking, steps, config.sample.end).guided.sum())


def guided_share(config: ConfigDict, system: System) -> float:
    """Share of the steps that evaluate the error predictor; 1 without one."""
    if error_predictor(config, system) is None:
        return 1.0
    return predictor_evaluations(config, system) / sampling_steps(config)


def rule(config: ConfigDict) -> remasking.Rule:
    """Which known positions the policy's coins mask again."""
    if config.policy == "remdm_conf":
        return remasking.shared
    if config.policy != "remdm":
        return remasking.none
    if not 0 <= config.remask.eta <= 1:
        raise ValueError(f"sample.remask.eta: must lie in [0, 1], not {config.remask.eta}")
    rules = PUBLIC_RULES if config.remask.public else RULES
    return lookup(rules, config.remask.rule, "sample.remask.rule")(config.remask.eta)


def sampling_schedule(config: ConfigDict, process: MaskedProcess) -> Schedule:
    """The mask level over sampling time: the process's own, or G-Star's loop with its plateau in the window."""
    options = config.remask
    if options.schedule == "loop":
        if config.policy == "first_hitting":
            raise ValueError("sample.remask.schedule: first_hitting follows the process; set it to process")
        if not (0 < options.off < options.on < 1 and 0 < options.level < 1):
            raise ValueError("sample.remask: a loop needs 0 < off < on < 1 and 0 < level < 1")
        return Loop(options.off, options.on, options.level)
    return process.schedule


def sampling_grid(config: ConfigDict, process: MaskedProcess, steps: int, end: float) -> Grid:
    """The time grid of a config."""
    options, length = config.sample, window_length(config) * process.subtokens
    schedule = sampling_schedule(options, process)
    table = grid(
        schedule,
        steps,
        length,
        end=end,
        temperature=options.temperature,
        nucleus=options.nucleus,
        ramp=tuple(options.temperature_ramp),
        warp=tuple(options.warp),
        process=process.schedule,
        window=Window(options.remask.off, options.remask.on),
        rule=rule(options),
        times=public_times(options),
        levels=public_levels(options, schedule),
    )
    if options.policy != "p2":
        return table
    return table._replace(masks=jnp.asarray(p2_mask_counts(steps, length, options.remask.kappa)))
