"""Array aliases, and the protocols that more than one package uses.

Shapes: B examples, L tokens, N positions of a noisy state (L times the sub-tokens per token), K classes of the
network's vocabulary (tokens, then the mask, then padding). Time is 0 for clean data and 1 for pure noise; alpha(t) is
the probability that a position is still clean at time t.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key, PyTree

Params = PyTree
Tokens = Int[Array | np.ndarray, "B L"]
Symbols = Int[Array | np.ndarray, "B N"]  # a state: tokens or their sub-tokens, and masks
Times = Float[Array, " B"]
Number = float | Float[Array, ""]  # a constant of the program, or an input of it
LossMask = Float[Array | np.ndarray, "B L"]  # weight of each token in a loss; 0 for padding
TokenMask = Bool[Array | np.ndarray, "B L"]  # a subset of the tokens, such as those that are not padding
# Numbers of any shape: a function of them returns arrays of the caller's library and precision.
Scalars = TypeVar("Scalars", Float[Array, "*shape"], Float[np.ndarray, "*shape"], Float[np.floating, "*shape"])
Logits = Float[Array, "B L K"]
Ids = Sequence[int] | Integer[np.ndarray, " N"]  # token ids of one text
Keys = Key[Array, " B"]
Batch = Mapping[str, Array | np.ndarray]
# Metrics are pairs (total, count), so that means stay exact over padding, hosts and micro-batches.
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]

# A denoiser with its parameters and conditioning bound, as estimators and oracles call it.
Denoise = Callable[[Symbols, Times], Logits]


@runtime_checkable
class Schedule(Protocol):
    """A noise schedule of masked diffusion, by both levels, so that neither loses precision where it is small."""

    def masked(self, time: Scalars) -> Scalars:
        """The mask level 1 - alpha(t), in the array library and precision of `time`."""
        ...

    def alpha(self, time: Scalars) -> Scalars:
        """alpha(t), the probability that a position is still clean at `time`."""
        ...


@runtime_checkable
class Process(Protocol):
    """A forward process on tokens, with all that its objective, bound, sampler and oracle ask of it.

    A level is 1 - alpha(t), the share of positions that noise has reached. The S values of a position in a state are
    the C tokens, and whatever else a position can be, such as a mask.
    """

    @property
    def schedule(self) -> Schedule:
        """The level over time."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number C of tokens that can be predicted."""
        ...

    @property
    def subtokens(self) -> int:
        """Number of positions per token in the noisy state."""
        ...

    def prior(self, keys: Keys, length: int) -> Symbols:
        """Draw the state at t = 1 of sequences of `length` tokens, with one key per example."""
        ...

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Symbols:
        """Draw a noisy state given clean tokens, with one key and one time per example."""
        ...

    def posterior(
        self, logits: Logits, noisy: Symbols, level: Float[Array, " B"], next_level: Float[Array, " B"]
    ) -> Float[Array, "B N S"]:
        """log p of every position's next value in the reverse step from `level` to `next_level`, in nats."""
        ...

    def bound_integrand(
        self, logits: Logits, noisy: Symbols, clean: Symbols, level: Float[Array, " B"]
    ) -> Float[Array, "B N"]:
        """The integrand of the bound on -log p(clean) over the level, in nats per position."""
        ...


@runtime_checkable
class MaskedProcess(Protocol):
    """A forward process that masks positions of a state, and the likelihood of logits over tokens given a state.

    A state has `subtokens` positions per token: 1 for whole tokens.
    """

    @property
    def schedule(self) -> Schedule:
        """The mask level over time."""
        ...

    @property
    def mask_id(self) -> int:
        """The symbol of a masked position."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number C of tokens that can be predicted."""
        ...

    @property
    def subtokens(self) -> int:
        """Number of positions per token in the noisy state."""
        ...

    def encode(self, tokens: Tokens) -> Symbols:
        """Convert tokens to their clean state."""
        ...

    def decode(self, state: Symbols) -> Tokens:
        """Convert a state to tokens; a token with a masked position becomes `vocabulary`."""
        ...

    def filtered(self, logits: Logits, noisy: Symbols) -> Float[Array, "B L C"]:
        """Return float32 logits over tokens (or all K classes) in which tokens that contradict `noisy` have no mass."""
        ...

    def noise(self, keys: Keys, length: int, time: Times) -> Float[Array, "B N"]:
        """Draw the level at which each position of `length` tokens becomes masked, uniform on [0, 1)."""
        ...

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Symbols:
        """Draw a noisy state given clean tokens, with one key and one time per example."""
        ...

    def log_prob(self, logits: Logits, noisy: Symbols, clean: Symbols) -> Float[Array, "B N"]:
        """log p(clean value | noisy state) of every position, in nats."""
        ...

    def token_log_prob(
        self,
        logits: Logits,
        noisy: Symbols,
        clean: Symbols,
        positions: Bool[Array, "B N"] | None = None,
    ) -> Float[Array, "B L"]:
        """Joint log p of every token's values at the selected `positions` (None: all), in nats per token."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """A network that maps noisy data and their time to logits (discrete data) or a clean estimate (continuous data)."""

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
        """Predict the clean data.

        Args:
          params: the network's parameters.
          noisy: symbols [B, N] or values [B, ...].
          time: times [B], or [B, L] where each position has its own.
          cond: the conditioning of each example, such as its class or prompt; None for none.
          memory: the self-conditioning input of each example (see `SelfConditioning`); None for none.
          keys: one key per example for dropout; None turns dropout off.
        """
        ...


@runtime_checkable
class SelfConditioning(Protocol):
    """The map from a denoiser's prediction to the self-conditioning input of its next call."""

    @property
    def process(self) -> MaskedProcess:
        """The process of the denoiser."""
        ...

    def empty(self, state: Symbols) -> Float[Array, "B L D"]:
        """The input of the first call, before any prediction."""
        ...

    def __call__(self, params: Params, logits: Logits, before: Symbols, after: Symbols) -> Float[Array, "B L D"]:
        """Compute the input at the state `after` from `logits` that were predicted at the state `before`."""
        ...


class Proposal(NamedTuple):
    """A full state: a token, or a sub-token, for every position."""

    tokens: Symbols
    log_prob: Float[Array, "B N"]  # of the proposed value under the network, before temperature and nucleus, in nats
    race: Float[Array, "B N"]  # the largest p / E of the exponential race, for the low-precision rule


@runtime_checkable
class Propose(Protocol):
    """A rule that draws a full state given logits and the noisy state from which they were computed."""

    def __call__(
        self,
        keys: Keys,
        logits: Logits,
        noisy: Symbols,
        temperature: Float[Array, ""],
        nucleus: Float[Array, ""],
    ) -> Proposal:
        """Draw a full state."""
        ...

    def best(self, logits: Logits, noisy: Symbols) -> Symbols:
        """Return the most probable value of every position."""
        ...


LENGTH_CENTER = 128  # the length class of a target that is as long as its source


class EncodedSource(NamedTuple):
    """Encoded source sequences, and logits of the target's length."""

    states: Float[Array, "B S D"]
    mask: Bool[Array, "B S"]
    lengths: Float[Array, "B C"]  # logits of clip(target length - source length + LENGTH_CENTER, 0, C - 1)


class SequenceCondition(NamedTuple):
    """Conditioning of a denoiser of target sequences: the source, and the target positions that are not padding."""

    encoded: EncodedSource
    target: TokenMask
