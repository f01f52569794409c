"""Training of embedding diffusion, sequence to sequence: one step for the bases, SCP, MANS, and both together.

The order is FastDiSS's (arXiv 2604.05551): a time an example, MANS's times of single tokens, SCP's estimate from a
later time still, the loss. Its equations were not to be had: what they leave open is a field here, said to be inferred.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.codecs.embedding import Embedding
from diffusion.objectives.noise_scaling import UNSCALED, NoiseScaling
from diffusion.objectives.perturbation import STANDARD, Noised, Perturbation
from diffusion.processes.gaussian import GaussianDiffusion
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
SourceMask = Bool[Array | np.ndarray, "B S"]  # which positions are real

# (params, source, its mask, keys for dropout or None) -> what the decoder reads.
Encode = Callable[..., EncodedSource]
# Cross-entropy of the estimate (Difformer's anchor), of the clean embedding itself (Diffusion-LM), of both, or of none,
# with which embeddings collapse.
ROUNDINGS = ("anchor", "round", "both", "none")
# A coin an example says whether it remembers (Difformer's, there one a batch), or every example is trained without and
# with a memory and the losses are summed (DINOISER). FastDiSS's "alternately" is taken for the coin; that is inferred.
ALTERNATES = ("flip", "sum")
# DINOISER's lowest time, from the distance of neighboring embeddings.
FLOORS = ("none", "clipped", "clipped_s")


@dataclass(frozen=True)
class EmbeddingDiffusion:
    """Mean over target tokens of ||z^ - z_0||^2 / d + CE(z^ E^T, y) + length_weight CE(length), in nats.

    z_t = alpha z_0 + sigma F e with times of single tokens, z^ = f(z_t, t, b s, x), s = sg f(z_t', t', 0, x) and b ~
    Bernoulli(memory_rate) for each example. Without `perturbation` and `scaling` that is standard self-conditioning.
    Estimates are made without dropout unless `estimate_dropout`, and pass no gradient. The length's cross-entropy of a
    sentence counts once for each of its tokens. With `fill` padding is replaced by that token and is generated like
    any other (DiffuSeq), and there is no length to learn. With `none_id` every example reads that one token in place of
    a source: the model without a condition.

    Raises:
      ValueError: for unknown names, and rates out of range.
    """

    encode: Encode
    denoiser: Denoiser
    codec: Embedding
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
    none_id: int | None = None

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

    @property
    def remembers(self) -> bool:
        """Whether any example reads an estimate; where none does, none is made."""
        return self.alternate == "sum" or self.memory_rate > 0

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        keys, (tokens, weights) = draws.keys, filled(batch, self.fill)
        mask = weights > 0

        def dropout(name: str, on: bool = True) -> Keys | None:
            return fold(keys, name) if train and on else None

        source, source_mask = sources(batch, self.none_id)
        encoded = self.encode(params, source, source_mask, dropout("encoder"))
        condition = SequenceCondition(encoded, mask)
        held = jax.lax.stop_gradient((params, condition))

        def estimate(noisy: Float[Array, "B L d"], time: Float[Array, "B L"], name: str) -> Float[Array, "B L d"]:
            noisy = jax.lax.stop_gradient(noisy)
            keys = dropout(name, self.estimate_dropout)
            return jax.lax.stop_gradient(self.denoiser(held[0], noisy, time, held[1], None, keys=keys))

        clean = self.codec.encode(params, tokens)
        lowest = lowest_time(self.codec, params, self.floor)
        time = jnp.broadcast_to((lowest + (1 - lowest) * draws.uniform)[:, None], tokens.shape)
        metrics = {}
        level = told = time
        if self.scaling.map != "off":
            first = estimate(self.process.corrupt(keys, clean, time)[0], time, "first")
            confidence = self.scaling.confidence(self.codec, held[0], first, tokens)
            level = self.scaling.times(fold(keys, "scaling"), self.process.schedule, time, confidence, mask)
            told = level if self.scaling.aware else time
            metrics["confidence"] = jnp.sum(confidence * weights), jnp.sum(weights)
            metrics["moved"] = jnp.sum((level - time) * weights), jnp.sum(weights)

        # However times and memory were made, what follows is compiled alike: what is off is off to the last bit.
        level, told = jax.lax.optimization_barrier((level, told))
        noisy, noise = jax.lax.optimization_barrier(self.process.corrupt(keys, clean, level))
        memory = jnp.zeros_like(noisy)
        if self.remembers:
            gap, now = self.perturbation.gaps(fold(keys, "gaps"), level), Noised(clean, noisy, noise, level)
            later = jnp.minimum(level + gap, 1.0)
            ahead = self.perturbation.state(fold(keys, "coupled"), self.process, now, later)
            memory = jax.lax.optimization_barrier(estimate(ahead, jnp.minimum(told + gap, 1.0), "estimate"))

        def loss(memory: Float[Array, "B L d"]) -> tuple[Float[Array, ""], Metrics]:
            predicted = self.denoiser(params, noisy, told, condition, memory, keys=dropout("dropout"))
            return self.loss(params, predicted, clean, tokens, weights)

        if not self.remembers:
            total, parts = loss(memory)
        elif self.alternate == "flip":
            coins = bernoulli(fold(keys, "memory"), self.memory_rate)
            total, parts = loss(jnp.where(coins[:, None, None], memory, 0.0))
        else:
            total, parts = jax.tree.map(jnp.add, loss(jnp.zeros_like(memory)), loss(memory))
        metrics |= parts
        if self.length_weight and self.fill is None and encoded.lengths.shape[-1]:
            nats, hits = length_loss(encoded.lengths, source_mask, mask)
            total += self.length_weight * jnp.sum(nats * jnp.sum(weights, axis=1))
            real = jnp.any(mask, axis=1).astype(jnp.float32)
            metrics["length"] = jnp.sum(nats * real), jnp.sum(real)
            metrics["length_hits"] = jnp.sum(hits * real), jnp.sum(real)
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
        """The sum over tokens of the squared error and the cross-entropies, and both apart."""
        count = jnp.sum(weights)
        square = jnp.sum(jnp.mean((predicted - clean) ** 2, axis=-1) * weights)
        total, metrics = square, {"square": (square, count)}
        for name, latents in (("anchor", predicted), ("round", clean)):
            if self.rounding not in (name, "both"):
                continue
            logits = self.codec.logits(params, latents)
            nats = jnp.sum(cross_entropy(logits, tokens, self.codec.vocabulary, self.label_smoothing) * weights)
            total += nats
            metrics[name] = nats, count
        return total, metrics


def sources(batch: Batch, none_id: int | None) -> tuple[Sources, SourceMask]:
    """Sources and which of their positions are real; with `none_id` that one token.

    Raises:
      ValueError: for a batch without a source and no `none_id`.
    """
    if none_id is not None:
        return no_source(len(batch["tokens"]), none_id)
    if "source" not in batch:
        raise ValueError("data.source: the examples have no source text; set objective.none_id for a model without")
    return batch["source"], batch["source_weights"] > 0


def no_source(size: int, none_id: int) -> tuple[Int[Array, "B 1"], Bool[Array, "B 1"]]:
    """A source that says nothing, and its mask."""
    return jnp.full((size, 1), none_id), jnp.ones((size, 1), bool)


def filled(batch: Batch, fill: int | None) -> tuple[Tokens, LossMask]:
    """Targets and their weights; with `fill` that token stands for padding, and counts where the example does."""
    tokens, weights = batch["tokens"], batch["weights"]
    if fill is None:
        return tokens, weights
    real = jnp.any(weights > 0, axis=1, keepdims=True).astype(weights.dtype)
    return jnp.where(weights > 0, tokens, fill), jnp.broadcast_to(real, weights.shape)


def lowest_time(codec: Embedding, params: Params, floor: str) -> Float[Array, ""]:
    """DINOISER's t_min = sqrt(v / (1 + v)) (`clipped`), with v + 1 in place of v (`clipped_s`), or 0.

    v is the mean squared distance of a token's embedding to its nearest neighbor, over d; that of the weights at hand,
    where the public code starts from 1e-3.
    """
    if floor == "none":
        return jnp.zeros(())
    distance = jax.lax.stop_gradient(codec.neighbor_distance(params)) + (floor == "clipped_s")
    return jnp.sqrt(distance / (1 + distance))


def cross_entropy(logits: Logits, tokens: Tokens, vocabulary: int, smoothing: float) -> Float[Array, "B L"]:
    """logsumexp - (1 - smoothing) gold logit - smoothing mean logit, over the first `vocabulary` classes, in nats."""
    gold = jnp.take_along_axis(logits, jnp.minimum(tokens, vocabulary - 1)[..., None], axis=-1)[..., 0]
    target = gold
    if smoothing:
        target = (1 - smoothing) * gold + smoothing * jnp.mean(logits[..., :vocabulary], axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - target


def length_classes(source: SourceMask, target: TokenMask, classes: int) -> Int[Array, " B"]:
    """clip(target length - source length + 128, 0, classes - 1)."""
    offset = jnp.sum(target, axis=1) - jnp.sum(source, axis=1) + LENGTH_CENTER
    return jnp.clip(offset.astype(jnp.int32), 0, classes - 1)


def length_loss(
    logits: Float[Array, "B C"], source: SourceMask, target: TokenMask
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
    """Cross-entropy of the length in nats, and whether the most probable one is right."""
    gold = length_classes(source, target, logits.shape[-1])
    chosen = jnp.take_along_axis(logits, gold[:, None], axis=-1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen, jnp.argmax(logits, axis=-1) == gold
