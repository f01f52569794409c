"""Masked (absorbing-state) diffusion of whole tokens."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.categorical import EXCLUDED, exclude, log_probs, target_log_probs
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
    subtokens = 1  # positions per token in the noisy state

    @property
    def vocabulary(self) -> int:
        """Number of tokens that can be predicted."""
        return self.mask_id

    def prior(self, keys: Keys, length: int) -> Tokens:
        """The state at t = 1: all masks."""
        return jnp.full((len(keys), length), self.mask_id, jnp.int32)

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

    def posterior(
        self, logits: Logits, noisy: Tokens, level: Float[Array, " B"], next_level: Float[Array, " B"]
    ) -> Float[Array, "B L S"]:
        """Compute log p(z_s | z_t) over the tokens and the mask, in nats, for the reverse step between two levels.

        A mask stays one with probability (1 - alpha_s) / (1 - alpha_t), and else becomes a token by the network; known
        positions keep their token (MDLM, arXiv 2406.07524).
        """
        stay = (next_level / level)[:, None, None]
        log_stay, log_move = (jnp.where(mass > 0, jnp.log(mass), EXCLUDED) for mass in (stay, 1 - stay))
        masses = log_move + log_probs(logits, self.mask_id)[..., : self.mask_id]
        step = jnp.concatenate([masses, jnp.broadcast_to(log_stay, (*noisy.shape, 1))], axis=-1)
        known = jax.nn.one_hot(noisy, self.mask_id + 1, dtype=bool)
        return jnp.where((noisy == self.mask_id)[..., None], step, jnp.where(known, 0.0, EXCLUDED))

    def bound_integrand(
        self, logits: Logits, noisy: Tokens, clean: Tokens, level: Float[Array, " B"]
    ) -> Float[Array, "B L"]:
        """Compute -log p(clean token) / level at masked positions and 0 at others, in nats per position.

        Its integral over the levels from 0 to 1 is the NELBO of MDLM, whatever the schedule (arXiv 2406.07524).
        """
        hidden = noisy == self.mask_id
        level = jnp.where(hidden, level[:, None], 1.0)
        return jnp.where(hidden, -self.log_prob(logits, noisy, clean) / level, 0.0)

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
