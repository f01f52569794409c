"""Self-conditioning of masked diffusion: a network reads its own previous prediction (SCMDM, arXiv 2604.26985).

The self-conditioning input is the soft embedding c E, [B, L, D], of the predicted probabilities c, [B, L, V]. A row of
zeros stands for no prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.objectives.elbo import row_share
from diffusion.readout import Readout, RowLogits, Rows, read, readout
from diffusion.rng import bernoulli, fold
from diffusion.types import Denoiser, Logits, MaskedProcess, Params, SelfConditioning, Symbols

SelfConditioningInput = Float[Array, "B L D"]


@dataclass(frozen=True)
class SoftEmbedding:
    """The self-conditioning input at the state `after`, [B, L, D], of a prediction at the state `before`.

    c is the softmax over tokens. Rows are c E at positions that are masked in both states, and zeros elsewhere, so that
    training and sampling have the same kind of rows. The paper does not specify the rows that are passed on; those that
    also hold the embeddings of unmasked tokens, or c E as it is, are not offered.

    For sub-tokens, a token counts as masked while any of its sub-tokens is, and sub-tokens that are unmasked in `after`
    filter the softmax. A token gets zeros if any of its sub-tokens is masked again.
    """

    process: MaskedProcess
    table: Callable[[Params], Float[Array, "K D"]]
    width: int
    dtype: str = "float32"

    def empty(self, state: Symbols) -> SelfConditioningInput:
        """The input before the first prediction: zeros."""
        return jnp.zeros((len(state), state.shape[1] // self.process.subtokens, self.width))

    def __call__(self, params: Params, logits: Logits, before: Symbols, after: Symbols) -> SelfConditioningInput:
        process = self.process
        table = self.table(params)[: process.vocabulary]  # the mask and padding may have rows too
        # Sub-tokens that the step has unmasked exclude tokens, as those unmasked before it did.
        probs = jax.nn.softmax(process.filtered(logits, after), axis=-1)[..., : process.vocabulary]
        soft = jnp.matmul(probs.astype(self.dtype), table.astype(self.dtype), preferred_element_type=jnp.float32)
        masked, mask_id = self.any_subtoken(after == process.mask_id), process.mask_id
        remasked = self.any_subtoken((after == mask_id) & (before != mask_id))
        return jnp.where((masked & ~remasked)[..., None], soft, 0.0)

    def any_subtoken(self, positions: Bool[Array | np.ndarray, "B N"]) -> Bool[Array, "B L"]:
        """Return whether any position of each token is set."""
        return jnp.any(positions.reshape(len(positions), -1, self.process.subtokens), axis=-1)


def input_of(
    self_conditioning: SelfConditioning, params: Params, evaluation: Readout, state: Symbols
) -> SelfConditioningInput:
    """Return the self-conditioning input that a prediction at `state` leaves for another pass at the same state.

    It is zero at tokens without a mask, whose logits are not computed.
    """
    process = self_conditioning.process
    by_token = evaluation.by_token(state)

    def soft(logits: RowLogits, rows: Rows) -> Float[Array, "R D"]:
        at_rows = rows.take(by_token)
        return self_conditioning(params, logits, at_rows, at_rows)[:, 0]

    masked = jnp.any(by_token == process.mask_id, axis=-1)
    share = row_share(evaluation.shape, process.subtokens / (process.subtokens + 1))
    return read(evaluation, masked, soft, share)


@dataclass(frozen=True)
class MultiPassDenoiser:
    """A denoiser whose self-conditioning input is `previous(params, noisy, time, cond, keys)`, of passes before it."""

    denoiser: Denoiser
    previous: Callable[..., SelfConditioningInput | None]

    def __call__(self, params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
        return self.denoiser(params, noisy, time, cond, self.previous(params, noisy, time, cond, keys), keys=keys)

    def readout(self, params, noisy, time, cond=None, memory=None, *, keys=None) -> Readout:
        """Evaluate all passes; see `Denoiser` for the arguments, of which `memory` is not read."""
        memory = self.previous(params, noisy, time, cond, keys)
        return readout(self.denoiser, params, noisy, time, cond, memory, keys=keys)


def randomly_self_conditioned(denoiser: Denoiser, self_conditioning: SelfConditioning, rate: float = 1.0) -> Denoiser:
    """The training pass of SCMDM (arXiv 2604.26985), x_theta(z, b sg[x_theta(z, 0)]).

    b ~ Bernoulli(rate) for each example, and sg stops the gradient. The first pass uses the current weights, without
    dropout and without a gradient; the second pass has both. Without keys (evaluation) b is 1: this is the two-pass
    denoiser, a function of z alone, whose likelihood bound is valid.

    Raises:
      ValueError: for a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"memory.rate: must lie in [0, 1], not {rate}")

    def previous(params, noisy, time, cond, keys):
        first = readout(denoiser, jax.lax.stop_gradient(params), noisy, time, cond)
        result = input_of(self_conditioning, params, first, noisy)
        if rate < 1 and keys is not None:
            coins = bernoulli(fold(keys, "memory"), rate)
            result = jnp.where(coins[:, None, None], result, 0.0)
        return result

    return MultiPassDenoiser(denoiser, previous)


def self_conditioned(denoiser: Denoiser, self_conditioning: SelfConditioning | None, passes: int) -> Denoiser:
    """The denoiser with `passes` passes at the same state, each conditioned on the prediction of the pass before it."""

    def previous(params, noisy, time, cond, keys):
        result = None
        for _ in range(passes - 1):
            assert self_conditioning is not None
            evaluation = readout(denoiser, params, noisy, time, cond, result, keys=keys)
            result = input_of(self_conditioning, params, evaluation, noisy)
        return result

    return MultiPassDenoiser(denoiser, previous)
