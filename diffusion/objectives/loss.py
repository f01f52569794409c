"""What the objectives share: the denoiser of a batch, and the loss as a sum and a number of tokens or examples."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.readout import BoundDenoiser, Readout, RowLogits, Rows, read_all
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoiser, Metrics, Params, Symbols

# The number whose gradient is taken, a sum over the batch, and the metrics.
Loss = tuple[Float[Array, ""], Metrics]


def bind_batch(denoiser: Denoiser, params: Params, batch: Batch, draws: Draws, train: bool) -> BoundDenoiser:
    """Bind parameters, labels and, in training, the keys of dropout."""
    keys = fold(draws.keys, "dropout") if train else None
    return BoundDenoiser(denoiser, params, batch.get("label"), keys)


def token_log_probs(evaluation: Readout, tokens: Symbols, vocabulary: int) -> Float[Array, "B L"]:
    """Compute log p of `tokens` under the logits of all tokens, in nats (see `target_log_probs`)."""

    def at_rows(logits: RowLogits, rows: Rows) -> Float[Array, " R"]:
        return target_log_probs(logits, rows.take(jnp.asarray(tokens))[:, None], vocabulary)[:, 0]

    return read_all(evaluation, at_rows)


def summed(losses: Float[Array, "..."], weights: Float[Array | np.ndarray, "..."]) -> Loss:
    """Return the sum of weighted losses, in their unit, and the metric "loss", its mean per token (or example)."""
    total = jnp.sum(losses)
    return total, {"loss": (total, jnp.sum(weights))}
