"""Self-conditioning of masked diffusion (SCMDM): a network is told what it predicted at the step before.

A prediction is kept as its soft embedding c E, [B, L, D]: the adapters depend on the probabilities c, [B, L, V],
through it alone. A zero row says that there is none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from diffusion.rng import bernoulli, fold
from diffusion.types import Denoiser, Logits, MaskedProcess, Params, Symbols

ROWS = ("masked", "recarry", "raw")
Memory = Float[Array, "B L D"]


@dataclass(frozen=True)
class SoftEmbedding:
    """The self-conditioning input at state `after`, [B, L, D], from a prediction that was made at state `before`.

    c is the softmax over tokens where `before` has a mask and the token itself elsewhere (SUBS carry-over). Which rows
    are passed on is not known of the paper: "masked", those of positions that `after` masks (the rest is zero, so that
    training and sampling see the same kind of rows); "recarry", everywhere, known positions with their token; "raw", c
    as it is. A position that is masked again starts from a zero row: its c is the very token that was taken back.
    On digits a token counts as masked while any of its digits is, and digits that `after` knows rule tokens out.

    Raises:
      ValueError: for unknown rows.
    """

    process: MaskedProcess
    table: Callable[[Params], Float[Array, "K D"]]
    width: int
    rows: str = "masked"
    dtype: str = "float32"

    def __post_init__(self):
        if self.rows not in ROWS:
            raise ValueError(f"memory.rows: unknown {self.rows!r}; known: {', '.join(ROWS)}")

    def empty(self, state: Symbols) -> Memory:
        """What is remembered before the first prediction: nothing."""
        return jnp.zeros((len(state), state.shape[1] // self.process.subtokens, self.width))

    def __call__(self, params: Params, logits: Logits, before: Symbols, after: Symbols) -> Memory:
        process = self.process
        table = self.table(params)[: process.vocabulary]  # the mask and padding may have rows too
        # Half-known tokens: what the step has revealed rules tokens out, as what was known did.
        known_digits = before if self.rows == "raw" else after
        probs = jax.nn.softmax(process.filtered(logits, known_digits), axis=-1)[..., : process.vocabulary]
        soft = jnp.matmul(probs.astype(self.dtype), table.astype(self.dtype), preferred_element_type=jnp.float32)

        def known(state: Symbols) -> Memory:
            return jnp.take(table, process.decode(state), axis=0, mode="fill", fill_value=0)

        masked, mask_id = self.any_subtoken(after == process.mask_id), process.mask_id
        again = self.any_subtoken((after == mask_id) & (before != mask_id))
        kept = jnp.where((masked & ~again)[..., None], soft, 0.0)
        if self.rows == "masked":
            return kept
        if self.rows == "recarry":
            return jnp.where(masked[..., None], kept, known(after))
        carried = jnp.where(self.any_subtoken(before == mask_id)[..., None], soft, known(before))
        return jnp.where(again[..., None], 0.0, carried)

    def any_subtoken(self, positions: Bool[Array | np.ndarray, "B N"]) -> Bool[Array, "B L"]:
        """Positions of the state to tokens."""
        return jnp.any(positions.reshape(len(positions), -1, self.process.subtokens), axis=-1)


def randomly_self_conditioned(denoiser: Denoiser, self_conditioning: SoftEmbedding, rate: float = 1.0) -> Denoiser:
    """SCMDM's training pass, x_theta(z, b sg[x_theta(z, 0)]) with b ~ Bernoulli(rate) for each example.

    The first pass runs on the current weights without dropout and without a gradient; the second has both. Without keys
    (evaluation) b is 1: this is the two-pass denoiser, a function of z alone, whose likelihood bound is valid.

    Raises:
      ValueError: for a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"memory.rate: must lie in [0, 1], not {rate}")

    def denoise(params, noisy, time, cond=None, memory=None, *, keys=None):
        del memory
        first = denoiser(jax.lax.stop_gradient(params), noisy, time, cond)
        remembered = self_conditioning(params, jax.lax.stop_gradient(first), noisy, noisy)
        if rate < 1 and keys is not None:
            coins = bernoulli(fold(keys, "memory"), rate)
            remembered = jnp.where(coins[:, None, None], remembered, 0.0)
        return denoiser(params, noisy, time, cond, remembered, keys=keys)

    return denoise


def self_conditioned(denoiser: Denoiser, self_conditioning: SoftEmbedding | None, passes: int) -> Denoiser:
    """The denoiser conditioned `passes` - 1 times on its own prediction at the same state; at 1 pass it is itself."""

    def denoise(params, noisy, time, cond=None, memory=None, *, keys=None):
        del memory
        remembered = None
        for _ in range(passes - 1):
            assert self_conditioning is not None
            logits = denoiser(params, noisy, time, cond, remembered, keys=keys)
            remembered = self_conditioning(params, logits, noisy, noisy)
        return denoiser(params, noisy, time, cond, remembered, keys=keys)

    return denoise
