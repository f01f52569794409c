"""Error predictors beside a denoiser: the networks of G-Star and their objective, and the masked planners of P2."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array
from ml_collections import ConfigDict

from diffusion.categorical import target_log_probs
from diffusion.nets.dit import DiT
from diffusion.nets.error_predictor import ErrorPredictor
from diffusion.objectives.error_prediction import ErrorPrediction
from diffusion.objectives.self_conditioning import SoftEmbedding, randomly_self_conditioned
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.readout import Readout, readout
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import SubtokenDraw
from diffusion.types import Denoiser, Params
from experiments.families.base import ErrorHead, System


def extended(config: ConfigDict, base: System, judge: System | None) -> System:
    """The system `base` with the error predictor of `predictor.kind` beside it; itself where that is none.

    Raises:
      ValueError: for a predictor of a network that is not a bidirectional transformer.
    """
    if config.predictor.kind == "none":
        if config.objective.name == "errors":
            raise ValueError("objective.name: errors trains a predictor; set predictor.kind to full, block or head")
        return base
    if not isinstance(base.net, DiT) or config.model.causal:
        raise ValueError("predictor.kind: goes with model.net=dit and model.causal=False; set it to none")
    predictor = ErrorPredictor(config.predictor.kind, base.net)

    def extend(key, denoiser, judged=None):
        parts = {"denoiser": denoiser, "errors": predictor.init(key, denoiser)}
        return parts | ({"judge": judged} if judge else {})

    def init(key):
        predictor_key, denoiser_key, judge_key = jax.random.split(key, 3)
        return extend(predictor_key, base.init(denoiser_key), judge.init(judge_key) if judge else None)

    def predict(params, tokens, label=None):
        return predictor(params["denoiser"], params["errors"], tokens, label if config.model.labels else None)

    return with_head(init, ErrorHead(base=base, judge=judge, extend=extend, predict=predict))


def planned(base: System, planner: System) -> System:
    """The system `base` with a masked denoiser as its error predictor: an external planner (P2, arXiv 2502.03540).

    The planner reads a full sequence at time 0, without masks. Its error logit is log((1 - p) / p) for its probability
    p of the token of a position, the mask excluded, so that log sigmoid(-logit) = log p. The public code shows it fresh
    draws at known positions, which keep their tokens.
    """

    def extend(key, denoiser, weights):
        return {"denoiser": denoiser, "errors": weights}

    def init(key):
        denoiser_key, planner_key = jax.random.split(key)
        return extend(None, base.init(denoiser_key), planner.init(planner_key))

    def predict(params, tokens, label=None):
        logits = planner.denoiser(params["errors"], tokens, jnp.zeros(len(tokens)), label)
        log_prob = target_log_probs(logits, tokens, planner.masking.vocabulary)
        return jnp.log(-jnp.expm1(log_prob)) - log_prob

    return with_head(init, ErrorHead(base=base, judge=None, extend=extend, predict=predict))


def with_head(init: Callable[[jax.Array], Params], head: ErrorHead) -> System:
    """The system of `head.base` among the parameters of `init`, which are those of the denoiser and of others."""
    conditioning = head.base.self_conditioning
    if conditioning is not None:
        assert isinstance(conditioning, SoftEmbedding)
        conditioning = replace(conditioning, table=of_denoiser(conditioning.table))
    denoiser = OneOfSeveral(head.base.denoiser)
    return replace(head.base, denoiser=denoiser, init=init, self_conditioning=conditioning, errors=head)


@dataclass(frozen=True)
class OneOfSeveral:
    """A denoiser whose parameters are the entry "denoiser" of those of several networks."""

    denoiser: Denoiser

    def __call__(self, params, *inputs, **options):
        return self.denoiser(params["denoiser"], *inputs, **options)

    def readout(self, params, *inputs, **options) -> Readout:
        """Evaluate the denoiser; see `ReadableDenoiser`."""
        return readout(self.denoiser, params["denoiser"], *inputs, **options)


def of_denoiser(table: Callable[[Params], Array]) -> Callable[[Params], Array]:
    """The same table, from the parameters of denoiser and predictor."""
    return lambda params: table(params["denoiser"])


def objective(config: ConfigDict, system: System) -> ErrorPrediction:
    """The predictor's objective; its denoiser is frozen, and self-conditioned where it has an adapter."""
    options, head = config.predictor, system.errors
    assert head is not None and isinstance(head.base.net, DiT)
    denoiser = head.base.denoiser
    if head.base.self_conditioning:
        denoiser = randomly_self_conditioned(denoiser, head.base.self_conditioning)
    process = head.base.masking
    draw = Draw(process.vocabulary)
    return ErrorPrediction(
        denoiser,
        ErrorPredictor(options.kind, head.base.net),
        process,
        SubtokenDraw(process, draw) if isinstance(process, PartialMaskedDiffusion) else draw,
        labels=options.labels,
        loss=options.loss,
        scope=options.scope,
        own_masks=options.own_masks,
        minimum_time=config.objective.minimum_time,
        time=options.time,
        corruption=options.corruption,
        threshold=options.threshold,
        steps=options.steps,
        judge=head.judge.denoiser if head.judge else None,
    )
