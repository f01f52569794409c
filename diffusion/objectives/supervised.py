"""Classification of clean examples by their labels: how the classifier that judges pictures is trained."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.rng import Draws, fold
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
