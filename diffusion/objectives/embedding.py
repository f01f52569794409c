"""The objective of sequence-to-sequence embedding diffusion, with the two extensions of FastDiSS (arXiv 2604.05551).

The extensions are self-conditioning perturbation (SCP) and model-aware noise scaling (MANS). As in FastDiSS, a time
per example is drawn first, then MANS maps it to a time per token, then SCP computes an estimate at a later time. The
equations of the paper were not available to us; choices that are inferred are fields, and are documented as inferred.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import exclude
from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.loss import Loss
from diffusion.objectives.noise_scaling import UNSCALED, NoiseScaling, confidence
from diffusion.objectives.perturbation import STANDARD, NoisyState, Perturbation
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.readout import Readout, RowLogits, Rows, read_all
from diffusion.rng import Draws, bernoulli, fold
from diffusion.types import (
    LENGTH_CENTER,
    Batch,
    Denoiser,
    EncodedSource,
    Keys,
    Logits,
    LossMask,
    Metrics,
    Params,
    SequenceCondition,
    TokenMask,
    Tokens,
)

Sources = Int[Array | np.ndarray, "B S"]
SourceMask = Bool[Array | np.ndarray, "B S"]  # positions that are not padding

# (params, source, source mask, keys for dropout or None) -> the encoded source.
Encode = Callable[..., EncodedSource]
# The cross-entropy is that of the estimate (the anchor loss of Difformer) or of the clean embedding (Diffusion-LM).
ROUNDINGS = ("anchor", "round")
# "flip": self-conditioning is on or off by a coin per example (Difformer: per batch). "sum": every example is trained
# without and with it, and the losses are added (DINOISER). FastDiSS alternates; that this means "flip" is inferred.
ALTERNATES = ("flip", "sum")
# The lowest time: 0, or that of DINOISER, which depends on the distance of neighboring embeddings.
FLOORS = ("none", "clipped", "clipped_s")


@dataclass(frozen=True)
class EmbeddingDiffusion:
    """Mean over target tokens of ||z^ - z_0||^2 / d + CE(z^ E^T, y) + length_weight CE(length), in nats per token.

    z_t = alpha z_0 + sigma F e with one time per token, z^ = f(z_t, t, b s, x) with the self-conditioning input
    s = sg f(z_t', t', 0, x), and b ~ Bernoulli(memory_rate) for each example (Difformer, arXiv 2212.09412; SCP and
    MANS: FastDiSS, arXiv 2604.05551). Without `perturbation` and `scaling` this is standard self-conditioning.
    Estimates have no gradient, and dropout only with `estimate_dropout`. The cross-entropy of a sentence's length
    counts once per token of the sentence. With `fill`, padding is replaced by that token, which is generated like any
    other, and the length is not learned (DiffuSeq). With `null_id`, every source is that null token: a model without
    conditioning.

    Raises:
      ValueError: for unknown names, and rates out of range.
    """

    encode: Encode
    denoiser: Denoiser
    codec: EmbeddingCodec
    process: GaussianDiffusion
    perturbation: Perturbation = STANDARD
    scaling: NoiseScaling = UNSCALED
    memory_rate: float = 0.5
    alternate: str = "flip"
    rounding: str = "anchor"
    floor: str = "none"
    label_smoothing: float = 0.0
    length_weight: float = 0.1
    estimate_dropout: bool = False
    fill: int | None = None
    null_id: int | None = None

    def __post_init__(self):
        named = (("alternate", ALTERNATES), ("rounding", ROUNDINGS), ("floor", FLOORS))
        for field, known in named:
            value = getattr(self, field)
            if value not in known:
                raise ValueError(f"objective.{field}: unknown {value!r}; known: {', '.join(known)}")
        for field in ("memory_rate", "label_smoothing"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"objective.{field}: must lie in [0, 1], not {getattr(self, field)}")
        if self.process.parameterization != "clean":
            raise ValueError("process.prediction: embedding diffusion predicts the clean embedding; set it to 'clean'")

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        keys, (tokens, weights) = draws.keys, fill_padding(batch, self.fill)
        mask = weights > 0

        def dropout(name: str, on: bool = True) -> Keys | None:
            return fold(keys, name) if train and on else None

        source, source_mask = source_of(batch, self.null_id)
        encoded = self.encode(params, source, source_mask, dropout("encoder"))
        condition = SequenceCondition(encoded, mask)
        constants = jax.lax.stop_gradient((params, condition))

        def estimate(noisy: Float[Array, "B L d"], time: Float[Array, "B L"], name: str) -> Float[Array, "B L d"]:
            noisy = jax.lax.stop_gradient(noisy)
            keys = dropout(name, self.estimate_dropout)
            return jax.lax.stop_gradient(self.denoiser(constants[0], noisy, time, constants[1], None, keys=keys))

        clean = self.codec.encode(params, tokens)
        select_lowest = lowest_time(self.codec, params, self.floor)
        time = jnp.broadcast_to((select_lowest + (1 - select_lowest) * draws.uniform)[:, None], tokens.shape)
        metrics = {}
        token_time = network_time = time
        if self.scaling.map != "off":
            first_estimate = estimate(self.process.corrupt(keys, clean, time)[0], time, "first")
            certain = confidence(self.codec, constants[0], first_estimate, tokens)
            token_time = self.scaling.times(fold(keys, "scaling"), self.process.schedule, time, certain, mask)
            network_time = token_time if self.scaling.aware else time
            metrics["confidence"] = jnp.sum(certain * weights), jnp.sum(weights)
            metrics["moved"] = jnp.sum((token_time - time) * weights), jnp.sum(weights)

        # Barriers keep XLA from fusing across them, so that an extension that is off does not change a single bit.
        token_time, network_time = jax.lax.optimization_barrier((token_time, network_time))
        noisy, noise = jax.lax.optimization_barrier(self.process.corrupt(keys, clean, token_time))
        previous = jnp.zeros_like(noisy)
        # Otherwise no example reads an estimate.
        self_conditioned = self.alternate == "sum" or self.memory_rate > 0
        if self_conditioned:
            gap = self.perturbation.gaps(fold(keys, "gaps"), token_time)
            state, later = NoisyState(clean, noisy, noise, token_time), jnp.minimum(token_time + gap, 1.0)
            later_noisy = self.perturbation.state(fold(keys, "coupled"), self.process, state, later)
            later_network_time = jnp.minimum(network_time + gap, 1.0)
            previous = jax.lax.optimization_barrier(estimate(later_noisy, later_network_time, "estimate"))

        def loss(previous: Float[Array, "B L d"]) -> tuple[Float[Array, ""], Metrics]:
            predicted = self.denoiser(params, noisy, network_time, condition, previous, keys=dropout("dropout"))
            return self.loss(params, predicted, clean, tokens, weights)

        if not self_conditioned:
            total, parts = loss(previous)
        elif self.alternate == "flip":
            coins = bernoulli(fold(keys, "memory"), self.memory_rate)
            total, parts = loss(jnp.where(coins[:, None, None], previous, 0.0))
        else:
            total, parts = jax.tree.map(jnp.add, loss(jnp.zeros_like(previous)), loss(previous))
        metrics |= parts
        if self.length_weight and self.fill is None and encoded.lengths.shape[-1]:
            nats, hits = length_loss(encoded.lengths, source_mask, mask)
            total += self.length_weight * jnp.sum(nats * jnp.sum(weights, axis=1))
            nonempty = jnp.any(mask, axis=1).astype(jnp.float32)
            metrics["length"] = jnp.sum(nats * nonempty), jnp.sum(nonempty)
            metrics["length_hits"] = jnp.sum(hits * nonempty), jnp.sum(nonempty)
        metrics["cosine"] = jax.lax.stop_gradient(self.codec.mean_cosine(params)), jnp.ones(())
        return total, {"loss": (total, jnp.sum(weights))} | metrics

    def loss(
        self,
        params: Params,
        predicted: Float[Array, "B L d"],
        clean: Float[Array, "B L d"],
        tokens: Tokens,
        weights: LossMask,
    ) -> tuple[Float[Array, ""], Metrics]:
        """Compute the sum over tokens of squared error and cross-entropy, and the metrics of each term."""
        count = jnp.sum(weights)
        square = jnp.sum(jnp.mean((predicted - clean) ** 2, axis=-1) * weights)
        evaluation = self.codec.readout(params, predicted if self.rounding == "anchor" else clean)
        nats = token_cross_entropy(evaluation, tokens, self.codec.vocabulary, self.label_smoothing)
        nats = jnp.sum(nats * weights)
        return square + nats, {"square": (square, count), self.rounding: (nats, count)}


def source_of(batch: Batch, null_id: int | None) -> tuple[Sources, SourceMask]:
    """Return the sources of a batch and the mask of their tokens; with `null_id`, null sources.

    Raises:
      ValueError: for a batch without a source and no `null_id`.
    """
    if null_id is not None:
        return null_source(len(batch["tokens"]), null_id)
    if "source" not in batch:
        raise ValueError("data.source: the examples have no source text; set objective.none_id for a model without")
    return batch["source"], batch["source_weights"] > 0


def null_source(size: int, null_id: int) -> tuple[Int[Array, "B 1"], Bool[Array, "B 1"]]:
    """Return null sources, of one null token each, and their mask."""
    return jnp.full((size, 1), null_id), jnp.ones((size, 1), bool)


def fill_padding(batch: Batch, fill: int | None) -> tuple[Tokens, LossMask]:
    """Return targets and their weights; with `fill`, padding becomes that token and counts, but in empty examples."""
    tokens, weights = batch["tokens"], batch["weights"]
    if fill is None:
        return tokens, weights
    nonempty = jnp.any(weights > 0, axis=1, keepdims=True).astype(weights.dtype)
    return jnp.where(weights > 0, tokens, fill), jnp.broadcast_to(nonempty, weights.shape)


def lowest_time(codec: EmbeddingCodec, params: Params, floor: str) -> Float[Array, ""]:
    """Compute the lowest time: 0, or t_min = sqrt(v / (1 + v)) (DINOISER, arXiv 2302.10025).

    v is the mean squared distance of a token's embedding to its nearest neighbor over d ("clipped"), or that plus 1
    ("clipped_s"). It is computed from the current weights; the public code starts from 1e-3.
    """
    if floor == "none":
        return jnp.zeros(())
    distance = jax.lax.stop_gradient(codec.neighbor_distance(params)) + float(floor == "clipped_s")
    return jnp.sqrt(distance / (1 + distance))


def cross_entropy(logits: Logits, tokens: Tokens, vocabulary: int, smoothing: float) -> Float[Array, "B L"]:
    """Compute the cross-entropy with label smoothing, in nats per token.

    It is logsumexp(logits) - (1 - smoothing) gold logit - smoothing mean logit, over the first `vocabulary` classes.
    """
    gold = jnp.take_along_axis(logits, jnp.minimum(tokens, vocabulary - 1)[..., None], axis=-1)[..., 0]
    target = gold
    if smoothing:
        target = (1 - smoothing) * gold + smoothing * jnp.mean(logits[..., :vocabulary], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - target


def token_cross_entropy(evaluation: Readout, tokens: Tokens, vocabulary: int, smoothing: float) -> Float[Array, "B L"]:
    """Compute `cross_entropy` of all tokens, in which classes `vocabulary` and above have no mass."""

    def at_rows(logits: RowLogits, rows: Rows) -> Float[Array, " R"]:
        at = rows.take(jnp.asarray(tokens))[:, None]
        return cross_entropy(exclude(logits, vocabulary), at, vocabulary, smoothing)[:, 0]

    return read_all(evaluation, at_rows)


def length_classes(source: SourceMask, target: TokenMask, classes: int) -> Int[Array, " B"]:
    """Compute the length class clip(target length - source length + LENGTH_CENTER, 0, classes - 1)."""
    offset = jnp.sum(target, axis=1) - jnp.sum(source, axis=1) + LENGTH_CENTER
    return jnp.clip(offset.astype(jnp.int32), 0, classes - 1)


def length_loss(
    logits: Float[Array, "B C"], source: SourceMask, target: TokenMask
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """Compute the cross-entropy of the length, in nats per example, and whether the most probable length is correct."""
    gold = length_classes(source, target, logits.shape[-1])
    gold_logit = jnp.take_along_axis(logits, gold[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - gold_logit, jnp.argmax(logits, axis=-1) == gold
