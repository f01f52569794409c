"""The sub-token codec of MDM-Prime, and the codec between tokens and real values for Gaussian diffusion."""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from diffusion.types import Tokens


def smallest_base(vocabulary: int, digits: int) -> int:
    """Find the smallest b >= 2 with b^digits >= vocabulary.

    The search is over integers, because a floating-point root is too large for some powers, such as 3125 = 5^5.
    """
    base = max(2, int(vocabulary ** (1 / digits)) - 1)
    while base**digits < vocabulary:
        base += 1
    return base


@dataclass(frozen=True, eq=False)
class SubtokenCodec:
    """The base-b code of MDM-Prime: sub-token j of token v is floor(v / b^(l - j)) mod b, j = 1..l.

    The most significant sub-token is first. l is `digits`, b the smallest base with b^l >= C, and the value b is the
    mask. With a `permutation`, of the C tokens or of all b^l codes, token v gets the code of permutation[v] (index
    shuffling, MDM-Prime-v2).

    Raises:
      ValueError: for fewer than two tokens, fewer than one sub-token, more sub-tokens than a binary code has, a code of
        more than 32 bits, or an invalid permutation.
    """

    vocabulary: int
    digits: int
    permutation: np.ndarray | None = None

    def __post_init__(self):
        if self.digits < 1:
            raise ValueError(f"codec.digits: must be at least 1, not {self.digits}")
        if self.vocabulary < 2:
            raise ValueError(f"codec: a vocabulary of {self.vocabulary} token has nothing to encode")
        binary_digits = (self.vocabulary - 1).bit_length()
        if self.digits > binary_digits or self.digits * self.bits > 32:
            raise ValueError(
                f"codec.digits: {self.digits} digits of {self.bits} bits are too many; a vocabulary of "
                f"{self.vocabulary} needs at most {binary_digits}, and all bits must fit 32"
            )
        if self.permutation is not None:
            order = np.asarray(self.permutation)
            if len(order) not in (self.vocabulary, self.base**self.digits):
                raise ValueError(
                    f"codec.permutation: must have {self.vocabulary} or {self.base**self.digits} entries, "
                    f"not {len(order)}"
                )
            if not np.array_equal(np.sort(order), np.arange(len(order))):
                raise ValueError(f"codec.permutation: must hold each of 0..{len(order) - 1} exactly once")

    @cached_property
    def base(self) -> int:
        """Number of values of a sub-token."""
        return smallest_base(self.vocabulary, self.digits)

    @property
    def mask_id(self) -> int:
        """The value of a masked sub-token."""
        return self.base

    @property
    def bits(self) -> int:
        """Number of bits per sub-token of a packed code."""
        return (self.base - 1).bit_length()

    @cached_property
    def codes(self) -> Int[np.ndarray, " C"]:
        """The code 0..b^l - 1 of every token."""
        order = np.arange(self.vocabulary) if self.permutation is None else np.asarray(self.permutation)
        return order[: self.vocabulary].astype(np.int32)

    @cached_property
    def tokens(self) -> Int[np.ndarray, " N"]:
        """The token of every code 0..b^l - 1, or C for a code of no token."""
        tokens = np.full(self.base**self.digits, self.vocabulary, np.int32)
        tokens[self.codes] = np.arange(self.vocabulary)
        return tokens

    @cached_property
    def table(self) -> Int[np.ndarray, "l C"]:
        """Sub-token j of every token."""
        powers = self.base ** np.arange(self.digits)[::-1]
        return (self.codes[None] // powers[:, None] % self.base).astype(np.int32)

    @cached_property
    def packed(self) -> UInt32[np.ndarray, " C"]:
        """Every token's sub-tokens as bit fields of one integer, so that one exclusive-or compares all of them."""
        return np.bitwise_or.reduce(self.table.astype(np.uint32) << self.shifts[:, None], axis=0)

    @property
    def shifts(self) -> UInt32[np.ndarray, " l"]:
        """The position of the lowest bit of sub-token j."""
        return (self.bits * np.arange(self.digits)).astype(np.uint32)

    @property
    def fields(self) -> UInt32[np.ndarray, " l"]:
        """The bit mask of sub-token j."""
        return (np.uint32(2**self.bits - 1) << self.shifts).astype(np.uint32)

    def encode(self, tokens: Int[Array | np.ndarray, "..."]) -> Int[Array, "... l"]:
        """Convert tokens to sub-tokens; tokens must lie in 0..C-1."""
        return jnp.take(jnp.asarray(self.table.T), tokens, axis=0, mode="clip")

    def decode(self, subtokens: Int[Array | np.ndarray, "... l"]) -> Int[Array, "..."]:
        """Convert sub-tokens to tokens; C where a sub-token is masked or the code is no token's."""
        powers = jnp.asarray(self.base ** np.arange(self.digits)[::-1], jnp.int32)
        unmasked = jnp.all((subtokens >= 0) & (subtokens < self.base), axis=-1)
        code = jnp.where(unmasked, jnp.matmul(subtokens, powers), 0)
        return jnp.where(unmasked, jnp.take(jnp.asarray(self.tokens), code), self.vocabulary)

    def pack(self, subtokens: Int[Array | np.ndarray, "... l"]) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
        """Pack the unmasked sub-tokens into bit fields, and return their bit mask; masked ones are 0 in both."""
        known = subtokens != self.mask_id
        last = (1,) * (subtokens.ndim - 1) + (self.digits,)
        value = jnp.where(known, subtokens.astype(jnp.uint32) << jnp.asarray(self.shifts).reshape(last), 0)
        bits = jnp.where(known, jnp.asarray(self.fields).reshape(last), 0)
        # The fields are disjoint, so that their sum joins them.
        return jnp.sum(value, axis=-1, dtype=jnp.uint32), jnp.sum(bits, axis=-1, dtype=jnp.uint32)


def shuffled_codec(vocabulary: int, digits: int, seed: int, every_code: bool = False) -> SubtokenCodec:
    """Create a codec with a random permutation of token ids, or of all codes (index shuffling, MDM-Prime-v2)."""
    base = SubtokenCodec(vocabulary, digits).base
    count = base**digits if every_code else vocabulary
    return SubtokenCodec(vocabulary, digits, np.random.default_rng(seed).permutation(count))


@dataclass(frozen=True)
class PixelCodec:
    """Tokens 0 .. count - 1 as equally spaced values from `low` to `high`.

    With an `image` shape (height, width, channels) values are images [B, H, W, C], and rows of tokens are
    channel-major, as in data sets; without one values are vectors [B, L].
    """

    count: int = 256
    low: float = -1.0
    high: float = 1.0
    image: tuple[int, int, int] | None = None

    @property
    def step(self) -> float:
        """The distance of neighboring values."""
        return (self.high - self.low) / (self.count - 1)

    def encode(self, tokens: Tokens) -> Float[Array, "B ..."]:
        """Convert tokens to values."""
        values = self.low + jnp.astype(tokens, jnp.float32) * self.step
        if self.image is None:
            return values
        height, width, colors = self.image
        return values.reshape(-1, colors, height, width).transpose(0, 2, 3, 1)

    def decode(self, values: Float[Array, "B ..."]) -> Int[Array, "B L"]:
        """Round values to the nearest tokens; values outside [low, high] get the first or the last one."""
        if self.image is not None:
            values = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
        tokens = jnp.round((values - self.low) / (self.high - self.low) * (self.count - 1))
        return jnp.clip(tokens, 0, self.count - 1).astype(jnp.int32)

    def rounded(self, values: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Round values to those of the nearest tokens, as saving an example does."""
        return self.encode(self.decode(values))
