"""MDM-Prime's loss on images: the cross-entropy of every pixel, known or not, with one weight for all times."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoiser, MaskedProcess, Metrics, Params


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over tokens of -log p(x^i | z_t), t ~ U(0, 1), in nats: no weight, no filter, visible tokens too.

    That is the published training of the image models (MDM-Prime, image experiments). It is no bound on a likelihood:
    evaluate with one.
    """

    denoiser: Denoiser
    process: MaskedProcess
    vocabulary: int

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        tokens, weights = batch["tokens"], batch["weights"]
        noisy = self.process.corrupt(draws.keys, tokens, draws.uniform)
        keys = fold(draws.keys, "dropout") if train else None
        logits = self.denoiser(params, noisy, draws.uniform, batch.get("label"), keys=keys)
        total = jnp.sum(-target_log_probs(logits, tokens, self.vocabulary) * weights)
        return total, {"loss": (total, jnp.sum(weights))}
