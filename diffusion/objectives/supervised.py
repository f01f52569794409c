"""Classification of clean examples by their labels: how the classifier that judges pictures is trained."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.codecs.subtokens import PixelCodec
from diffusion.rng import Draws, fold, normal
from diffusion.types import Batch, Denoiser, Metrics, Params


@dataclass(frozen=True)
class Classification:
    """-log p(label | x) in nats an example, and the share of labels that the most probable class hits.

    The classifier is called as a denoiser is, on tokens without noise, and gives logits [B, labels].
    Raises:
      ValueError: when the data have no labels.
    """

    denoiser: Denoiser

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        if "label" not in batch:
            raise ValueError("objective.name: classification needs a source with labels: mnist, cifar10 or blobs")
        tokens, labels, weights = batch["tokens"], batch["label"], batch["weights"][:, 0]
        keys = fold(draws.keys, "dropout") if train else None
        logits = self.denoiser(params, tokens, jnp.zeros(len(tokens)), keys=keys).astype(jnp.float32)
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        total = jnp.sum(-jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0] * weights)
        hits = jnp.sum((jnp.argmax(logits, axis=-1) == labels) * weights)
        count = jnp.sum(weights)
        return total, {"loss": (total, count), "accuracy": (hits, count)}


@dataclass(frozen=True)
class ScoreRegression:
    """(r(picture, prompt) - score)^2 an example.

    While training the picture has Gaussian noise of a standard deviation uniform on [0, noise], so that the reward
    means something on the blurred estimates that guidance asks it about. It is called as a denoiser is.
    Raises:
      ValueError: when the data have no scores.
    """

    denoiser: Denoiser
    codec: PixelCodec
    noise: float = 0.5

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        if "score" not in batch:
            raise ValueError("objective.name: reward needs a source with scores, such as data.source=shapes_rewards")
        picture = self.codec.encode(batch["tokens"])
        if train:
            level = jax.vmap(jax.random.uniform)(fold(draws.keys, "level")) * self.noise
            picture = picture + level[:, None, None, None] * normal(fold(draws.keys, "noise"), picture.shape[1:])
        keys = fold(draws.keys, "dropout") if train else None
        reward = self.denoiser(params, picture, jnp.zeros(len(picture)), batch["prompt"], keys=keys)
        weights = batch["weights"][:, 0]
        total = jnp.sum((reward - batch["score"]) ** 2 * weights)
        return total, {"loss": (total, jnp.sum(weights))}
