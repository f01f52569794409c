"""Masked (absorbing-state) diffusion of whole tokens."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import exclude, target_log_probs
from diffusion.rng import fold, uniform
from diffusion.types import Keys, Logits, Schedule, Times, Tokens


@dataclass(frozen=True)
class MaskedDiffusion:
    """Masked diffusion, q(z_t | x) = Cat(alpha(t) x + (1 - alpha(t)) mask) at each position (MDLM, arXiv 2406.07524).

    Classes `mask_id` and above (the mask, then padding) are never predicted, as in MDLM's SUBS parameterization. The
    positions of a state are the tokens themselves.
    """

    mask_id: int
    schedule: Schedule

    @property
    def vocabulary(self) -> int:
        """Number of tokens that can be predicted."""
        return self.mask_id

    @property
    def subtokens(self) -> int:
        """Number of positions per token in the noisy state."""
        return 1

    def prior(self, size: int, length: int) -> Tokens:
        """The state at t = 1: all masks."""
        return jnp.full((size, length), self.mask_id, jnp.int32)

    def encode(self, tokens: Tokens) -> Tokens:
        """Convert tokens to their clean state: the tokens themselves."""
        return tokens

    def decode(self, state: Tokens) -> Tokens:
        """Convert a state to tokens; masked positions stay masked."""
        return state

    def filtered(self, logits: Logits, noisy: Tokens) -> Logits:
        """Return float32 logits in which only tokens have mass."""
        del noisy
        return exclude(logits, self.mask_id)

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B L"]:
        """Draw the level at which each position of `length` tokens becomes masked, uniform on [0, 1)."""
        del time
        return uniform(fold(keys, "corrupt"), (length,))

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Tokens:
        """Draw z_t given the clean tokens, with one key and one time per example."""
        level = self.schedule.masked(time)
        return jnp.where(self.noise(keys, clean.shape[1], time) < level[:, None], self.mask_id, clean)

    def log_prob(self, logits: Logits, noisy: Tokens, clean: Tokens) -> Float[Array, "B L"]:
        """log p(clean token | noisy state) of every position, in nats; meaningful at masked positions only."""
        del noisy
        return target_log_probs(logits, clean, self.mask_id)

    def token_log_prob(
        self, logits: Logits, noisy: Tokens, clean: Tokens, positions: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B L"]:
        """log p of every token at the selected `positions` (None: all), in nats per token; 0 where it is not masked."""
        hidden = noisy == self.mask_id
        return self.log_prob(logits, noisy, clean) * (hidden if positions is None else hidden & positions)
