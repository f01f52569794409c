"""G-Star's error predictor: a network that reads a full sequence and says which of its tokens are wrong."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.nets.dit import DiT, Head, flops_per_token
from diffusion.types import Params

KINDS = ("full", "block", "head")


@dataclass(frozen=True)
class ErrorPredictor:
    """g(y): one logit a token of a sequence without masks, larger where the token looks wrong (arXiv 2510.08369).

    "full" is the denoiser's network with one output a position, every weight its own; "block" the same with the first
    block alone; "head" puts a head of its own on the denoiser's network, which stays frozen. What it has from the
    denoiser starts as a copy. The head starts at zero, so that every logit is 0 and the cross-entropy ln 2. The network
    is told no noise level (sigma = 0), and has no memory.

    Raises:
      ValueError: for an unknown kind.
    """

    kind: str
    trunk: DiT

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"predictor.kind: unknown {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def blocks(self) -> int:
        """Blocks that a sequence passes."""
        return 1 if self.kind == "block" else self.trunk.blocks

    @property
    def net(self) -> DiT:
        """The denoiser's network with one output a position."""
        unroll = min(self.trunk.unroll, self.blocks)
        return self.trunk.clone(blocks=self.blocks, unroll=unroll, memory="none", outputs=1)

    def init(self, key: Key[Array, ""], denoiser: Params) -> Params:
        """The predictor's own parameters: copies of the denoiser's, and a head."""
        return self._own(denoiser) | {"head": self._head(key)}

    def __call__(
        self,
        denoiser: Params,
        params: Params,
        state: Int[Array, "B N"],
        label: Int[Array, " B"] | None = None,
        *,
        keys: Key[Array, " B"] | None = None,
    ) -> Float[Array, "B L"]:
        """Float32 error logits of every token of a full `state` (tokens, or their flat digits).

        `keys` turn dropout on, in what is trained alone: the frozen network gives the features that it gives a sampler.
        """
        if self.kind == "head":
            params, keys = jax.lax.stop_gradient(self._trunk(denoiser)) | params, None
        logits: Any = self.net.apply({"params": params}, state, label=label, keys=keys)
        return logits[..., 0].astype(jnp.float32)

    def flops(self, length: int) -> float:
        """Floating-point operations of one example of `length` tokens, counted as in `dit.flops_per_token`."""
        hidden, ratio = self.trunk.hidden, self.trunk.mlp_ratio
        token = flops_per_token(hidden=hidden, blocks=self.blocks, mlp_ratio=ratio, vocab_size=1, length=length)
        return length * token

    def _own(self, denoiser: Params) -> Params:
        if self.kind == "head":
            return {}
        # Real copies: a training step that gives its old state away must not hold one buffer twice.
        own = self._trunk(denoiser)
        return jax.tree.map(jnp.copy, own | {"blocks": jax.tree.map(lambda leaf: leaf[: self.blocks], own["blocks"])})

    def _trunk(self, denoiser: Params) -> Params:
        return {name: part for name, part in denoiser.items() if name not in ("adapter", "head")}

    def _head(self, key: Key[Array, ""]) -> Params:
        head = Head(1, self.trunk.adaln, self.trunk.dtype)
        return head.init(key, jnp.zeros((1, 1, self.trunk.hidden)), jnp.zeros((1, self.trunk.cond_dim)))["params"]
