"""Supervised objectives: a classifier of clean examples, and a reward model of images and prompts."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from diffusion.codecs.subtokens import PixelCodec
from diffusion.objectives.loss import Loss, summed
from diffusion.rng import Draws, fold, normal
from diffusion.types import Batch, Denoiser, Params


@dataclass(frozen=True)
class Classification:
    """Mean over examples of -log p(label | x), in nats per example, and the accuracy of the most probable class.

    The classifier has the signature of a denoiser; it reads clean tokens and returns logits [B, labels].

    Raises:
      ValueError: for data without labels.
    """

    denoiser: Denoiser

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        if "label" not in batch:
            raise ValueError("objective.name: classification needs a source with labels: mnist, cifar10 or blobs")
        tokens, labels, weights = batch["tokens"], batch["label"], batch["weights"][:, 0]
        keys = fold(draws.keys, "dropout") if train else None
        logits = self.denoiser(params, tokens, jnp.zeros(len(tokens)), keys=keys).astype(jnp.float32)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        nats = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) * weights)
        total, metrics = summed(nats * weights, weights)
        return total, metrics | {"accuracy": (hits, jnp.sum(weights))}


@dataclass(frozen=True)
class ScoreRegression:
    """Mean over examples of (r(image, prompt) - score)^2.

    In training Gaussian noise is added to the image, with a standard deviation uniform on [0, noise], because guidance
    evaluates the reward on blurred estimates. The reward model has the signature of a denoiser.

    Raises:
      ValueError: for data without scores.
    """

    denoiser: Denoiser
    codec: PixelCodec
    noise: float = 0.5

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        if "score" not in batch:
            raise ValueError("objective.name: reward needs a source with scores, such as data.source=shapes_rewards")
        image = self.codec.encode(batch["tokens"])
        if train:
            level = jax.vmap(jax.random.uniform)(fold(draws.keys, "level")) * self.noise
            image = image + level[:, None, None, None] * normal(fold(draws.keys, "noise"), image.shape[1:])
        keys = fold(draws.keys, "dropout") if train else None
        reward = self.denoiser(params, image, jnp.zeros(len(image)), batch["prompt"], keys=keys)
        weights = batch["weights"][:, 0]
        return summed((reward - batch["score"]) ** 2 * weights, weights)
