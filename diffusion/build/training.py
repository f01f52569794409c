"""The objective, the optimizer and the estimators of a config."""

from collections.abc import Callable
from dataclasses import replace

import optax
from ml_collections import ConfigDict

from diffusion.build.gaussian import EXACT
from diffusion.build.names import pick
from diffusion.build.pairs import LEARNS, NET, embedding_diffusion, next_target
from diffusion.build.predictors import error_prediction
from diffusion.build.systems import System
from diffusion.likelihood.estimators import CAUSAL, Estimate, estimator, split_passes
from diffusion.likelihood.gaussian import LevelBound
from diffusion.objectives.autoregressive import NextToken
from diffusion.objectives.cross_entropy import CrossEntropy
from diffusion.objectives.elbo import Nelbo
from diffusion.objectives.gaussian import Denoising
from diffusion.objectives.reveal import RevealNelbo
from diffusion.objectives.self_conditioning import randomly_self_conditioned
from diffusion.objectives.supervised import Classification, ScoreRegression
from diffusion.sampling.gaussian import solvers
from diffusion.schedules.gaussian import Betas
from diffusion.train.loop import Settings
from diffusion.train.optimizer import adamw
from diffusion.types import Params

OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "nelbo": lambda config, system: Nelbo(
        system.denoiser, system.masking, config.objective.minimum_time, config.objective.target
    ),
    "nelbo_reveal": lambda config, system: RevealNelbo(system.denoiser, system.masking, config.objective.target),
    "autoregressive": lambda config, system: NextToken(system.denoiser, system.masking.mask_id),
    "cross_entropy": lambda config, system: CrossEntropy(system.denoiser, system.masking, system.masking.vocabulary),
    "classification": lambda config, system: Classification(system.denoiser),
    "errors": error_prediction,
    "denoising": lambda config, system: Denoising(
        system.denoiser,
        system.diffusing,
        system.levels,
        config.objective.prompt_dropout,
        system.net.nothing,
        config.objective.minimum_time,
    ),
    "reward": lambda config, system: ScoreRegression(system.denoiser, system.levels, config.objective.noise),
    "embedding": embedding_diffusion,
    "next_target": next_target,
}
# What each network with Gaussian noise, or none, is trained for; the others take what is left.
GAUSSIAN_OBJECTIVES = {"captioned_unet": "denoising", "reward": "reward"}
PICTURES = "bound_gaussian"  # the estimator of pictures from prompts


def objective(config: ConfigDict, system: System) -> Callable:
    """The training objective; raises ValueError when network and objective do not fit."""
    needed, given = GAUSSIAN_OBJECTIVES.get(config.model.net), config.objective.name
    if config.model.net == NET:
        needed = LEARNS[config.encoder_decoder.kind]
    if needed != given and (needed or given in (*GAUSSIAN_OBJECTIVES.values(), *LEARNS.values())):
        raise ValueError(
            f"objective.name: {given} does not train model.net={config.model.net}; use {needed or 'nelbo'}"
        )
    if (config.objective.name == "autoregressive") != config.model.causal:
        raise ValueError("objective.name: autoregressive goes with model.causal=True, and nothing else does")
    if system.errors and config.objective.name != "errors":
        raise ValueError("predictor.kind: a predictor learns by objective.name=errors; set it, or the kind to none")
    pick(dict.fromkeys(("marginal", "joint")), config.objective.target, "objective.target")
    if system.self_conditioning and config.memory.rate != 0 and not system.errors:
        system = replace(
            system, denoiser=randomly_self_conditioned(system.denoiser, system.self_conditioning, config.memory.rate)
        )
    return pick(OBJECTIVES, config.objective.name, "objective.name")(config, system)


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW as the config says; of a network with an error predictor it moves the predictor alone."""
    fields = config.optimizer.to_dict()
    pick(dict.fromkeys(("constant", "cosine", "inverse_sqrt")), fields["decay"], "optimizer.decay")
    made = adamw(peak=fields.pop("learning_rate"), steps=config.train.steps, **fields)
    if config.objective.name != "errors":
        return made

    def moved(params: Params) -> dict[str, bool]:
        return {part: part == "errors" for part in params}

    return optax.masked(made, moved)


def settings(config: ConfigDict) -> Settings:
    """The loop's settings; raises ValueError for counts below 1."""
    fields = {name: value for name, value in config.train.items() if name != "evaluate_batches"}
    for name, value in fields.items():
        if value <= 0:
            raise ValueError(f"train.{name}: must be positive, not {value}")
    return Settings(**fields)


def estimators(config: ConfigDict) -> list[str]:
    """The names of the estimators to run, the one that feeds the table's plain columns first.

    For a network that remembers that is the bound of two passes.

    Raises:
      ValueError: for one that does not fit the network.
    """
    first = config.evaluate.estimator
    if config.model.net in EXACT:
        raise ValueError(f"model.net: {config.model.net} is an exact model, measured by `sample`; evaluate a network")
    if config.model.net == "captioned_unet":
        if first not in ("auto", PICTURES) or config.evaluate.also:
            raise ValueError(f"evaluate.estimator: pictures have {PICTURES} alone; use auto, and no evaluate.also")
        return [PICTURES]
    if first == "auto":
        noise = "bound_marginal" if config.codec.digits > 1 else "bound_continuous"
        noise += "_passes_2" if config.memory.adapter != "none" else ""
        first = "nll_autoregressive" if config.model.causal else noise
    names = list(dict.fromkeys([first, *config.evaluate.also]))
    for name in names:
        base, passes = split_passes(name)
        estimator(base)
        if passes > 1 and config.memory.adapter == "none":
            raise ValueError(f"evaluate.estimator: {name} is for a network that remembers; set memory.adapter")
        if (name in CAUSAL) != config.model.causal:
            raise ValueError(f"evaluate.estimator: {name} does not fit model.causal={config.model.causal}; use auto")
    return names


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """The estimator of one of those names; passes of a network that remembers are the denoiser's affair.

    Raises:
      ValueError: for a schedule, or a number of noise levels, that the bound of pictures cannot be taken over.
    """
    if name != PICTURES:
        return estimator(split_passes(name)[0])
    schedule, points = system.diffusing.schedule, config.evaluate.points
    if not isinstance(schedule, Betas):
        raise ValueError(f"process.schedule: {PICTURES} is for chains; use scaled_linear")
    if not 2 <= points <= schedule.steps:
        raise ValueError(f"evaluate.points: must lie in 2 .. {schedule.steps}, not {points}")
    return LevelBound(system.levels, solvers.karras(schedule, points))
