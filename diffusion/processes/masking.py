"""Absorbing-state diffusion: each position keeps its token with probability alpha(t), else becomes the mask."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import exclude, target_log_probs
from diffusion.rng import fold, uniform
from diffusion.types import Keys, Logits, Schedule, Times, Tokens


@dataclass(frozen=True)
class MaskedDiffusion:
    """The process of MDLM: q(z_t | x) keeps x with probability alpha(t) (arXiv 2406.07524).

    Classes at `mask_id` and above (the mask, then padding) are never predicted: the SUBS parameterization. Objectives,
    estimators and samplers know a process by these methods alone; here its positions are the tokens themselves.
    """

    mask_id: int
    schedule: Schedule

    @property
    def vocabulary(self) -> int:
        """Tokens that can be predicted."""
        return self.mask_id

    @property
    def subtokens(self) -> int:
        """Positions that a token has in the noisy state."""
        return 1

    def prior(self, size: int, length: int) -> Tokens:
        """The state at t = 1: all masks."""
        return jnp.full((size, length), self.mask_id, jnp.int32)

    def encode(self, tokens: Tokens) -> Tokens:
        """The clean state of tokens."""
        return tokens

    def decode(self, state: Tokens) -> Tokens:
        """The tokens of a state, where they are known."""
        return state

    def filtered(self, logits: Logits, noisy: Tokens) -> Logits:
        """Float32 logits in which no class but the tokens has mass."""
        del noisy
        return exclude(logits, self.mask_id)

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B L"]:
        """The level at which each position of `length` tokens is masked, uniform on [0, 1)."""
        del time
        return uniform(fold(keys, "corrupt"), (length,))

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Tokens:
        """Draw z_t given the clean tokens, with one key and one time an example."""
        level = self.schedule.masked(time)
        return jnp.where(self.noise(keys, clean.shape[1], time) < level[:, None], self.mask_id, clean)

    def log_prob(self, logits: Logits, noisy: Tokens, clean: Tokens) -> Float[Array, "B L"]:
        """log p of every position's clean value, in nats; it means something at masked positions alone."""
        del noisy
        return target_log_probs(logits, clean, self.mask_id)

    def token_log_prob(
        self, logits: Logits, noisy: Tokens, clean: Tokens, chosen: Bool[Array, "B L"] | None = None
    ) -> Float[Array, "B L"]:
        """log p of every token on the `chosen` positions (all), in nats; 0 where nothing of it is masked."""
        hidden = noisy == self.mask_id
        return self.log_prob(logits, noisy, clean) * (hidden if chosen is None else hidden & chosen)
