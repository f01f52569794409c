"""The error predictor of G-Star, which predicts the wrong tokens of a full sequence (arXiv 2510.08369)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.nets.dit import DiT, Head
from diffusion.types import Params

KINDS = ("full", "block", "head")


@dataclass(frozen=True)
class ErrorPredictor:
    """Error logits g(y), one per token of a sequence without masks: sigmoid(g) is the probability that it is wrong.

    "full" is the network of the denoiser with one output per position and separate parameters, "block" the same with
    the first block only, and "head" a separate head on the frozen network of the denoiser. Parameters other than the
    head start as copies of those of the denoiser. The head starts at zero, so that all logits are 0 and the
    cross-entropy is ln 2 nats per token. The noise level is 0, and there is no self-conditioning input.

    Raises:
      ValueError: if the kind is not known.
    """

    kind: str
    trunk: DiT

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"predictor.kind: unknown {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return 1 if self.kind == "block" else self.trunk.blocks

    @property
    def net(self) -> DiT:
        """The network of the denoiser with one output per position."""
        unroll = min(self.trunk.unroll, self.blocks)
        return self.trunk.clone(blocks=self.blocks, unroll=unroll, memory=False, outputs=1)

    def init(self, key: Key[Array, ""], denoiser: Params) -> Params:
        """Return the parameters of the predictor: copies of those of the denoiser, and a head."""
        head = Head(1, self.trunk.hidden, self.trunk.adaln, self.trunk.dtype)
        start = head.init(key, jnp.zeros((1, 1, self.trunk.hidden)), jnp.zeros((1, self.trunk.cond_dim)))["params"]
        if self.kind == "head":
            return {"head": start}
        trunk = self._trunk(denoiser)
        blocks = jax.tree.map(lambda leaf: leaf[: self.blocks], trunk["blocks"])
        # A training step donates its old state, which must not contain one buffer twice.
        return jax.tree.map(jnp.copy, trunk | {"blocks": blocks}) | {"head": start}

    def __call__(
        self,
        denoiser: Params,
        params: Params,
        state: Int[Array, "B N"],
        label: Int[Array, " B"] | None = None,
        *,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L"]:
        """Return float32 error logits of every token of a full `state` (tokens, or flattened sub-tokens).

        `keys`, one per example, turn on dropout, except in a frozen network, whose features must be those of sampling.
        """
        if self.kind == "head":
            params, keys = jax.lax.stop_gradient(self._trunk(denoiser)) | params, None
        logits: Any = self.net.apply({"params": params}, state, label=label, keys=keys)
        return logits[..., 0].astype(jnp.float32)

    def _trunk(self, denoiser: Params) -> Params:
        return {name: part for name, part in denoiser.items() if name not in ("adapter", "head")}
