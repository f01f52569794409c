"""Next-token cross-entropy, the baseline whose likelihood is exact."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoiser, Metrics, Params, Tokens


def shift_right(tokens: Tokens, start: int) -> Tokens:
    """Inputs that predict `tokens`: the start symbol, then all but the last token."""
    return jnp.pad(tokens[:, :-1], ((0, 0), (1, 0)), constant_values=start)


@dataclass(frozen=True)
class NextToken:
    """-sum_i log p(x^i | x^{<i}), in nats: an exact likelihood.

    The mask symbol serves as the start symbol, so that every token of a window is predicted, and AR and diffusion
    models are scored on the same positions.
    """

    denoiser: Denoiser
    mask_id: int

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        tokens, weights = batch["tokens"], batch["weights"]
        inputs = shift_right(tokens, self.mask_id)
        time = jnp.zeros(len(tokens))
        keys = fold(draws.keys, "dropout") if train else None
        logits = self.denoiser(params, inputs, time, batch.get("label"), keys=keys)
        total = jnp.sum(-target_log_probs(logits, tokens, self.mask_id) * weights)
        return total, {"loss": (total, jnp.sum(weights))}
