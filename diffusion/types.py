"""Array aliases, and the protocols that more than one package uses.

Shapes: B examples, L positions, N positions of a noisy state (L times the sub-tokens per token), K classes of the
network's vocabulary (tokens, then the mask, then padding). Time is 0 for clean data and 1 for pure noise; a process
keeps a position with probability alpha(t).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree

Params = PyTree
Tokens = Int[Array | np.ndarray, "B L"]
Symbols = Int[Array | np.ndarray, "B N"]  # positions of a state: tokens, or the sub-tokens of tokens, then the mask
Times = Float[Array, " B"]
Number = float | Float[Array, ""]  # a constant of the program, or an input of it
LossMask = Float[Array | np.ndarray, "B L"]  # how much each token counts
TokenMask = Bool[Array | np.ndarray, "B L"]  # tokens that are real, or that something is asked of
# Numbers of any shape, in the array library of the caller: a function of them gives what it was given.
Scalars = TypeVar("Scalars", Float[Array, "*shape"], Float[np.ndarray, "*shape"], Float[np.floating, "*shape"])
Logits = Float[Array, "B L K"]
Ids = Sequence[int] | Integer[np.ndarray, " N"]  # token ids of one text
Keys = Key[Array, " B"]
Batch = Mapping[str, Array | np.ndarray]
# A metric is kept as (total, count), so that its mean stays exact over padding, hosts and micro-batches.
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]

# A denoiser with parameters and conditioning bound: what estimators and oracles call.
Denoise = Callable[[Symbols, Times], Logits]


@runtime_checkable
class Schedule(Protocol):
    """A noise schedule of masked diffusion, given by its mask level so that small levels keep their precision."""

    def masked(self, time: Scalars) -> Scalars:
        """Probability that a position is masked at `time`, in the array library and precision of `time`."""
        ...

    def alpha(self, time: Scalars) -> Scalars:
        """Probability that a position is still clean at `time`."""
        return 1 - self.masked(time)


@runtime_checkable
class MaskedProcess(Protocol):
    """A forward process that replaces positions of a state by `mask_id`, and how logits over tokens read its states.

    A state has `subtokens` positions per token: 1 for whole tokens.
    """

    @property
    def schedule(self) -> Schedule:
        """Mask level over time."""
        ...

    @property
    def mask_id(self) -> int:
        """The masked symbol."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of tokens that can be predicted."""
        ...

    @property
    def subtokens(self) -> int:
        """Positions per token in the noisy state."""
        ...

    def prior(self, size: int, length: int) -> Symbols:
        """The state at t = 1."""
        ...

    def encode(self, tokens: Tokens) -> Symbols:
        """The clean state of tokens."""
        ...

    def decode(self, state: Symbols) -> Tokens:
        """The tokens of a state, where they are known."""
        ...

    def filtered(self, logits: Logits, noisy: Symbols) -> Float[Array, "B L C"]:
        """Float32 logits, of C = K classes or of the tokens alone, without mass where the state rules a token out."""
        ...

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B N"]:
        """The level at which each position of `length` tokens is masked, uniform on [0, 1)."""
        ...

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Symbols:
        """Draw a noisy state given clean tokens, with one key and one time per example."""
        ...

    def log_prob(self, logits: Logits, noisy: Symbols, clean: Symbols) -> Float[Array, "B N"]:
        """log p of the clean value of every position, in nats."""
        ...

    def token_log_prob(
        self,
        logits: Logits,
        noisy: Symbols,
        clean: Symbols,
        chosen: Bool[Array, "B N"] | None = None,
    ) -> Float[Array, "B L"]:
        """log p of every token on its `chosen` positions (None: all), in nats."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A network of any kind: noisy input and time to logits (discrete) or clean estimate (continuous)."""

    def __call__(
        self,
        params: Params,
        noisy: Any,
        time: Any,
        cond: Any = None,
        memory: Any = None,
        *,
        keys: Keys | None = None,
    ) -> Any:
        """Predict the clean data; `keys`, one per example, turn dropout on.

        `noisy` are tokens [B, N] or values [B, ...], `time` is [B], or [B, L] where each position has its own. `cond`
        is the conditioning of each example (its class, its prompt), `memory` the previous prediction (see
        `SelfConditioning`); None stands for no conditioning.
        """
        ...


@runtime_checkable
class SelfConditioning(Protocol):
    """What a denoiser's prediction leaves for its next call."""

    def empty(self, state: Symbols) -> Float[Array, "B L D"]:
        """The memory before the first prediction."""
        ...

    def __call__(self, params: Params, logits: Logits, before: Symbols, after: Symbols) -> Float[Array, "B L D"]:
        """The memory for the state `after` of a prediction made at the state `before`."""
        ...


class Proposal(NamedTuple):
    """A full state: a value for every position (a token, or a digit of one)."""

    tokens: Symbols
    log_prob: Float[Array, "B N"]  # of the proposed value under the network, before temperature and nucleus, in nats
    race: Float[Array, "B N"]  # winning p / E of the exponential race; used by the low-precision rule alone


@runtime_checkable
class Propose(Protocol):
    """Draws a full state given the logits and the state that they were computed from."""

    def __call__(
        self,
        keys: Keys,
        logits: Logits,
        noisy: Symbols,
        temperature: Float[Array, ""],
        nucleus: Float[Array, ""],
    ) -> Proposal:
        """A random proposal."""
        ...

    def best(self, logits: Logits, noisy: Symbols) -> Symbols:
        """The most probable value of every position."""
        ...


LENGTH_CENTER = 128  # class of a target as long as its source


class EncodedSource(NamedTuple):
    """Source sequences as a decoder reads them, and what they predict of the target's length."""

    states: Float[Array, "B S D"]
    mask: Bool[Array, "B S"]
    lengths: Float[Array, "B C"]  # logits of clip(target length - source length + LENGTH_CENTER, 0, C - 1)


class SequenceCondition(NamedTuple):
    """Conditioning of a denoiser of target sequences: the source, and which target positions are real."""

    encoded: EncodedSource
    target: TokenMask
