"""Codecs: what a token is to the noise.

Prime's codec writes it as digits, which are masked one by one; Gaussian noise falls on values of a real interval.
"""

from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from diffusion.types import Tokens


def smallest_base(vocabulary: int, digits: int) -> int:
    """The smallest b >= 2 with b^digits >= vocabulary, by integers: a float root is one too large for 3125 = 5^5."""
    base = max(2, int(vocabulary ** (1 / digits)) - 1)
    while base**digits < vocabulary:
        base += 1
    return base


@dataclass(frozen=True, eq=False)
class SubtokenCodec:
    """Base-b code of MDM-Prime: token v is the digits floor(v / b^(l - j)) mod b, j = 1..l, most significant first.

    b is the smallest base with b^l >= C; the digit b is the mask. With `permutation` token v takes the code of
    permutation[v] (index shuffling, MDM-Prime-v2), either among the C tokens or among all b^l codes. Noise, filter,
    embedding and sampler all take this object, so that they cannot disagree about the code.

    Raises:
      ValueError: for fewer than one digit, more than binary ones, a code of more than 32 bits, or a permutation that
        is none.
    """

    vocabulary: int
    digits: int
    permutation: np.ndarray | None = None

    def __post_init__(self):
        if self.digits < 1:
            raise ValueError(f"codec.digits: must be at least 1, not {self.digits}")
        if self.vocabulary < 2:
            raise ValueError(f"codec: a vocabulary of {self.vocabulary} token has nothing to encode")
        most = (self.vocabulary - 1).bit_length()
        if self.digits > most or self.digits * self.bits > 32:
            raise ValueError(
                f"codec.digits: {self.digits} digits of {self.bits} bits are too many; a vocabulary of "
                f"{self.vocabulary} needs at most {most}, and all bits must fit 32"
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
        """Values of a digit."""
        return smallest_base(self.vocabulary, self.digits)

    @property
    def mask_id(self) -> int:
        """The digit that stands for "unknown"."""
        return self.base

    @property
    def bits(self) -> int:
        """Bits that hold one digit of a packed code."""
        return (self.base - 1).bit_length()

    @cached_property
    def codes(self) -> Int[np.ndarray, " C"]:
        """The number that each token's digits write in base b."""
        order = np.arange(self.vocabulary) if self.permutation is None else np.asarray(self.permutation)
        return order[: self.vocabulary].astype(np.int32)

    @cached_property
    def tokens(self) -> Int[np.ndarray, " N"]:
        """The token of every code 0..b^l - 1, or C where the code is no token's."""
        tokens = np.full(self.base**self.digits, self.vocabulary, np.int32)
        tokens[self.codes] = np.arange(self.vocabulary)
        return tokens

    @cached_property
    def table(self) -> Int[np.ndarray, "l C"]:
        """Digit j of every token."""
        powers = self.base ** np.arange(self.digits)[::-1]
        return (self.codes[None] // powers[:, None] % self.base).astype(np.int32)

    @cached_property
    def packed(self) -> UInt32[np.ndarray, " C"]:
        """Every token's digits as bit fields of one integer: one exclusive-or compares all digits at once."""
        return np.bitwise_or.reduce(self.table.astype(np.uint32) << self.shifts[:, None], axis=0)

    @property
    def shifts(self) -> UInt32[np.ndarray, " l"]:
        """Where the bit field of digit j begins."""
        return (self.bits * np.arange(self.digits)).astype(np.uint32)

    @property
    def fields(self) -> UInt32[np.ndarray, " l"]:
        """The bits of digit j."""
        return (np.uint32(2**self.bits - 1) << self.shifts).astype(np.uint32)

    def encode(self, tokens: Int[Array | np.ndarray, "..."]) -> Int[Array, "... l"]:
        """Digits of tokens, which must lie in 0..C-1; `check` refuses others where values are at hand."""
        return jnp.take(jnp.asarray(self.table.T), tokens, axis=0, mode="clip")

    def decode(self, digits: Int[Array | np.ndarray, "... l"]) -> Int[Array, "..."]:
        """Tokens of digits; C where a digit is masked or the digits are no token's."""
        powers = jnp.asarray(self.base ** np.arange(self.digits)[::-1], jnp.int32)
        whole = jnp.all((digits >= 0) & (digits < self.base), axis=-1)
        code = jnp.where(whole, jnp.matmul(digits, powers), 0)
        return jnp.where(whole, jnp.take(jnp.asarray(self.tokens), code), self.vocabulary)

    def valid(self, digits: Int[Array | np.ndarray, "... l"]) -> Bool[Array, "..."]:
        """Whether these digits are those of a token."""
        return self.decode(digits) < self.vocabulary

    def pack(self, digits: Int[Array | np.ndarray, "... l"]) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
        """The known digits as bit fields, and the bits that are known; masked digits give zeros in both."""
        known = digits != self.mask_id
        last = (1,) * (digits.ndim - 1) + (self.digits,)
        value = jnp.where(known, digits.astype(jnp.uint32) << jnp.asarray(self.shifts).reshape(last), 0)
        return _either(value), _either(jnp.where(known, jnp.asarray(self.fields).reshape(last), 0))

    def check(self, tokens: Int[np.ndarray, "..."]) -> None:
        """Raise ValueError naming the first token outside 0..C-1."""
        array = np.asarray(tokens)
        wrong = array[(array < 0) | (array >= self.vocabulary)]
        if wrong.size:
            raise ValueError(f"codec: token id {int(wrong[0])} lies outside 0..{self.vocabulary - 1}")


def shuffled(vocabulary: int, digits: int, seed: int, every_code: bool = False) -> SubtokenCodec:
    """The code under a random permutation of the token ids, or of all codes (MDM-Prime-v2's index shuffling)."""
    plain = SubtokenCodec(vocabulary, digits)
    count = plain.base**digits if every_code else vocabulary
    return SubtokenCodec(vocabulary, digits, np.random.default_rng(seed).permutation(count))


def _either(fields: UInt32[Array, "... l"]) -> UInt32[Array, "..."]:
    """Disjoint bit fields in one integer: their sum."""
    return jnp.sum(fields, axis=-1, dtype=jnp.uint32)


@dataclass(frozen=True)
class PixelCodec:
    """Tokens 0 .. count - 1 as equally spaced values from `low` to `high`, and pictures as [H, W, C].

    Rows of tokens are channel-major, as data sets hold pictures; without an `image` shape they stay vectors.
    """

    count: int = 256
    low: float = -1.0
    high: float = 1.0
    image: tuple[int, int, int] | None = None

    @property
    def step(self) -> float:
        """From one value to the next."""
        return (self.high - self.low) / (self.count - 1)

    def encode(self, tokens: Tokens) -> Float[Array, "B ..."]:
        """The values that stand for tokens."""
        values = self.low + jnp.astype(tokens, jnp.float32) * self.step
        if self.image is None:
            return values
        height, width, colors = self.image
        return values.reshape(-1, colors, height, width).transpose(0, 2, 3, 1)

    def decode(self, values: Float[Array, "B ..."]) -> Int[Array, "B L"]:
        """The nearest tokens; what lies outside gets the first or the last one."""
        if self.image is not None:
            values = values.transpose(0, 3, 1, 2).reshape(len(values), -1)
        tokens = jnp.round((values - self.low) / (self.high - self.low) * (self.count - 1))
        return jnp.clip(tokens, 0, self.count - 1).astype(jnp.int32)

    def rounded(self, values: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """The values that a saved example would have."""
        return self.encode(self.decode(values))
