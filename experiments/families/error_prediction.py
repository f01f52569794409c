"""The system of a config: its network, and beside it the error predictor of G-Star where the config asks for one."""

from collections.abc import Callable
from dataclasses import replace

import jax
from jaxtyping import Array
from ml_collections import ConfigDict

from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.objectives.error_labels import Augment
from diffusion.objectives.error_prediction import ErrorPrediction
from diffusion.objectives.self_conditioning import randomly_self_conditioned
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import DigitDraw
from diffusion.types import Params
from experiments.families import seq2seq, text_to_image
from experiments.families.base import pick
from experiments.families.masked import System, denoising_system

KINDS = ("none", "full", "block", "head")


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network and process of a config; parameters are {"denoiser", "errors"} where it has an error predictor.

    Raises:
      ValueError: for a predictor of a network that is no bidirectional transformer.
    """
    if config.model.net in text_to_image.NETS:
        return text_to_image.gaussian_system(config, vocabulary)
    if config.model.net == seq2seq.NET:
        return seq2seq.pair_system(config, vocabulary)
    base = denoising_system(config, vocabulary)
    pick(dict.fromkeys(KINDS), config.predictor.kind, "predictor.kind")
    if config.predictor.kind == "none":
        if config.objective.name == "errors":
            raise ValueError("objective.name: errors trains a predictor; set predictor.kind to full, block or head")
        return base
    if not isinstance(base.net, DiT) or config.model.causal:
        raise ValueError("predictor.kind: goes with model.net=dit and model.causal=False; set it to none")
    predictor, judge = ErrorPredictor(config.predictor.kind, base.net), judge_system(config, vocabulary)

    def extend(key, denoiser, judged=None):
        parts = {"denoiser": denoiser, "errors": predictor.init(key, denoiser)}
        return parts | ({"judge": judged} if judge else {})

    def init(key):
        own, trained, judging = jax.random.split(key, 3)
        return extend(own, base.init(trained), judge.init(judging) if judge else None)

    def denoiser(params, *inputs, **options):
        return base.denoiser(params["denoiser"], *inputs, **options)

    def errors(params, state, label=None):
        told = label if config.model.labels else None
        return predictor(params["denoiser"], params["errors"], state, told)

    self_conditioning = base.self_conditioning and replace(
        base.self_conditioning, table=of_denoiser(base.self_conditioning.table)
    )
    return replace(
        base,
        denoiser=denoiser,
        init=init,
        self_conditioning=self_conditioning,
        base=base,
        extend=extend,
        errors=errors,
        error_flops=predictor.flops(config.data.length),
    )


def of_denoiser(table: Callable[[Params], Array]) -> Callable[[Params], Array]:
    """The same table, from the parameters of denoiser and predictor."""
    return lambda params: table(params["denoiser"])


def judge_system(config: ConfigDict, vocabulary: int) -> System | None:
    """The left-to-right network whose likelihoods are labels: of this config's sizes, on whole tokens; mostly none."""
    if config.predictor.labels != "likelihood":
        return None
    causal = config.copy_and_resolve_references()
    causal.model.update(causal=True, adaln=False, labels=0)
    causal.codec.digits, causal.memory.adapter = 1, "none"
    return denoising_system(causal, vocabulary)


def error_prediction(config: ConfigDict, system: System) -> ErrorPrediction:
    """The predictor's objective: its denoiser is frozen, and reads its own prediction where it remembers."""
    options, base = config.predictor, system.base
    assert base is not None and isinstance(base.net, DiT)
    denoiser = (
        randomly_self_conditioned(base.denoiser, base.self_conditioning) if base.self_conditioning else base.denoiser
    )
    process = base.masking
    draw = Draw(process.vocabulary)
    judge = judge_system(config, process.vocabulary)
    return ErrorPrediction(
        denoiser,
        ErrorPredictor(options.kind, base.net),
        process,
        DigitDraw(process, draw) if isinstance(process, PartialMaskedDiffusion) else draw,
        labels=options.labels,
        loss=options.loss,
        scope=options.scope,
        augment=Augment(**options.augment),
        own_masks=options.own_masks,
        minimum_time=config.objective.minimum_time,
        corruption=options.corruption,
        threshold=options.threshold,
        steps=options.steps,
        judge=judge.denoiser if judge else None,
    )
