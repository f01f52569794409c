"""Partial masking (MDM-Prime): masked diffusion of the sub-tokens of tokens, with partially masked tokens."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from diffusion.codecs.subtoken_marginals import carry_over, log_masses
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.rng import fold, uniform
from diffusion.types import Keys, Logits, Schedule, Symbols, Times, Tokens


@dataclass(frozen=True)
class PartialMaskedDiffusion:
    """Partial masking, in which q(y_t | y) keeps each sub-token with probability alpha(t) (MDM-Prime).

    p(token | y_t) is the network's softmax over C tokens. With `carry_over`, tokens that contradict an unmasked
    sub-token have probability 0; without it the network has to learn this. For t > `chunk_point` the sub-tokens of a
    token are masked together (MDM-Prime-v2). A chunk point of 1 is MDM-Prime and 0 is MDLM with another embedding.
    Values in between are for training only, as no monotone process has their marginals. Samplers reveal the sub-tokens
    of a token independently, whatever the chunk point.

    Raises:
      ValueError: for a chunk point outside [0, 1].
    """

    codec: SubtokenCodec
    schedule: Schedule
    carry_over: bool = True
    chunk_point: float = 1.0

    def __post_init__(self):
        if not 0 <= self.chunk_point <= 1:
            raise ValueError(f"codec.chunk_point: must lie in [0, 1], not {self.chunk_point}")

    @property
    def mask_id(self) -> int:
        """The masked sub-token."""
        return self.codec.mask_id

    @property
    def vocabulary(self) -> int:
        """Number of tokens that can be predicted."""
        return self.codec.vocabulary

    @property
    def subtokens(self) -> int:
        """Number of positions per token in the noisy state."""
        return self.codec.digits

    def encode(self, tokens: Tokens) -> Symbols:
        """Convert tokens to their clean state: the sub-tokens, token by token."""
        return self.codec.encode(tokens).reshape(len(tokens), -1)

    def decode(self, state: Symbols) -> Tokens:
        """Convert a state to tokens; C where sub-tokens are masked or encode no token."""
        return self.codec.decode(self.split(state))

    def split(self, state: Shaped[Array | np.ndarray, "B N"]) -> Shaped[Array | np.ndarray, "B L l"]:
        """Reshape a state, or other values of its positions, to one row per token."""
        return state.reshape(len(state), -1, self.subtokens)

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B N"]:
        """Draw the level at which each sub-token becomes masked, uniform on [0, 1).

        Sub-tokens that are masked together have one level per token.
        """
        subtoken_levels = uniform(fold(keys, "corrupt"), (length * self.subtokens,))
        if self.chunk_point >= 1:
            return subtoken_levels
        token_levels = jnp.repeat(uniform(fold(keys, "corrupt tokens"), (length,)), self.subtokens, axis=1)
        return jnp.where(self.masks_together(time)[:, None], token_levels, subtoken_levels)

    def masks_together(self, time: Times) -> Bool[Array, " B"]:
        """Whether the sub-tokens of a token are masked together at this time."""
        return (time > self.chunk_point) | (self.chunk_point == 0)

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Symbols:
        """Draw y_t given the clean tokens, with one key and one time per example."""
        level = self.schedule.masked(time)
        return jnp.where(self.noise(keys, clean.shape[1], time) < level[:, None], self.mask_id, self.encode(clean))

    def filtered(self, logits: Logits, noisy: Symbols) -> Float[Array, "B L C"]:
        """Return float32 logits over tokens; with `carry_over`, tokens that contradict `noisy` have no mass."""
        return carry_over(logits, self.codec, self.visible(noisy))

    def visible(self, noisy: Symbols) -> Int[Array | np.ndarray, "B L l"]:
        """The sub-tokens that the carry-over filter reads: those of the state, or with `carry_over` off all masked."""
        subtokens = self.split(noisy)
        return subtokens if self.carry_over else jnp.full_like(subtokens, self.mask_id)

    def log_prob(self, logits: Logits, noisy: Symbols, clean: Symbols) -> Float[Array, "B N"]:
        """log of every sub-token's marginal, the sum of p(v | y_t) over tokens v with its clean value, in nats."""
        fields = jnp.asarray(self.codec.fields)[None, None]
        masses = log_masses(logits, self.codec, self.visible(noisy), self.split(clean), fields)
        return masses.reshape(clean.shape)

    def token_log_prob(
        self, logits: Logits, noisy: Symbols, clean: Symbols, positions: Bool[Array, "B N"] | None = None
    ) -> Float[Array, "B L"]:
        """Joint log p of every token's sub-tokens at the selected `positions` (None: all), in nats per token."""
        fields = jnp.broadcast_to(jnp.asarray(self.codec.fields)[None, None], self.split(clean).shape)
        fields = fields if positions is None else jnp.where(self.split(positions), fields, 0)
        bits = jnp.sum(fields, axis=-1, keepdims=True, dtype=jnp.uint32)
        return log_masses(logits, self.codec, self.visible(noisy), self.split(clean), bits)[..., 0]
