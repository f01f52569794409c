"""Partial masking (MDM-Prime): the masking process on the digits of tokens, so that a token can be half known."""

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
    """q(y_t | y) keeps each digit with probability alpha(t); p(token | y_t) is the network's softmax over C tokens.

    With `carry_over` tokens that contradict a known digit have probability 0; without it the network must learn so.
    For t > `chunk_point` all digits of a token share one coin (MDM-Prime-v2): 1 is Prime, 0 is MDLM with another
    embedding; between them no monotone process has these marginals, so it is for training alone.
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
        """The masked digit."""
        return self.codec.mask_id

    @property
    def vocabulary(self) -> int:
        """Tokens that can be predicted."""
        return self.codec.vocabulary

    @property
    def subtokens(self) -> int:
        """Positions that a token has in the noisy state."""
        return self.codec.digits

    def prior(self, size: int, length: int) -> Symbols:
        """The state at t = 1: all digits masked."""
        return jnp.full((size, length * self.subtokens), self.mask_id, jnp.int32)

    def encode(self, tokens: Tokens) -> Symbols:
        """The digits of tokens, flat."""
        return self.codec.encode(tokens).reshape(len(tokens), -1)

    def decode(self, state: Symbols) -> Tokens:
        """The tokens of flat digits; C where they are no token's."""
        return self.codec.decode(self.split(state))

    def split(self, state: Shaped[Array | np.ndarray, "B N"]) -> Shaped[Array | np.ndarray, "B L l"]:
        """Flat digits, or what is told of each, by token."""
        return state.reshape(len(state), -1, self.subtokens)

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B N"]:
        """The level at which each digit is masked, uniform on [0, 1); one a token where coins are shared."""
        digit = uniform(fold(keys, "corrupt"), (length * self.subtokens,))
        if self.chunk_point >= 1:
            return digit
        token = jnp.repeat(uniform(fold(keys, "corrupt tokens"), (length,)), self.subtokens, axis=1)
        return jnp.where(self.grouped(time)[:, None], token, digit)

    def grouped(self, time: Times) -> Bool[Array, " B"]:
        """Whether the digits of a token share one coin at this time."""
        return (time > self.chunk_point) | (self.chunk_point == 0)

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Symbols:
        """Draw y_t given the clean tokens, with one key and one time an example."""
        level = self.schedule.masked(time)
        return jnp.where(self.noise(keys, clean.shape[1], time) < level[:, None], self.mask_id, self.encode(clean))

    def filtered(self, logits: Logits, noisy: Symbols) -> Float[Array, "B L C"]:
        """Float32 logits over tokens, without those that the filter rules out."""
        return carry_over(logits, self.codec, self.visible(noisy))

    def visible(self, noisy: Symbols) -> Int[Array | np.ndarray, "B L l"]:
        """The digits that the filter reads: those of the state, or none."""
        digits = self.split(noisy)
        return digits if self.carry_over else jnp.full_like(digits, self.mask_id)

    def log_prob(self, logits: Logits, noisy: Symbols, clean: Symbols) -> Float[Array, "B N"]:
        """log of the marginal of every digit's clean value, sum of p(v | y_t) over tokens v that have it, in nats."""
        fields = jnp.asarray(self.codec.fields)[None, None]
        masses = log_masses(logits, self.codec, self.visible(noisy), self.split(clean), fields)
        return masses.reshape(clean.shape)

    def token_log_prob(
        self, logits: Logits, noisy: Symbols, clean: Symbols, chosen: Bool[Array, "B N"] | None = None
    ) -> Float[Array, "B L"]:
        """log of the joint mass of every token's `chosen` digits (all: log p of the token), in nats."""
        fields = jnp.broadcast_to(jnp.asarray(self.codec.fields)[None, None], self.split(clean).shape)
        fields = fields if chosen is None else jnp.where(self.split(chosen), fields, 0)
        bits = jnp.sum(fields, axis=-1, keepdims=True, dtype=jnp.uint32)
        return log_masses(logits, self.codec, self.visible(noisy), self.split(clean), bits)[..., 0]
