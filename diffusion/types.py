"""The array aliases and callables that every other module speaks in.

Shapes: B examples, L positions, K classes of the network's vocabulary (tokens, then the mask, then padding).
Time is 0 for clean data and 1 for pure noise; a process "keeps" a position with probability alpha(t).
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jaxtyping import Array, Float, Int, Key, PyTree

Params = PyTree
Tokens = Int[Array, "B L"]
Times = Float[Array, " B"]
Logits = Float[Array, "B L K"]
Keys = Key[Array, " B"]
Batch = Mapping[str, Array]
# A metric is kept as (total, count), so that its mean stays exact over padding, hosts and micro-batches.
Metrics = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]

# A denoiser with parameters and conditioning bound: what estimators and oracles see.
Denoise = Callable[[Tokens, Times], Logits]


class Denoiser(Protocol):
    """A network of any kind: noisy input and time to logits (discrete) or clean estimate (continuous)."""

    def __call__(
        self,
        params: Params,
        noisy: Tokens,
        time: Times,
        cond: Any = None,
        memory: Any = None,
        *,
        keys: Keys | None = None,
    ) -> Logits:
        """Predict the clean data; `keys`, one an example, turn dropout on.

        `cond` is what the network is told of an example (its class), `memory` what it predicted before (see
        `self_conditioning.Recall`); None is nothing, for each.
        """
