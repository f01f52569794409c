"""The way of a network's own last prediction into its input: SCMDM's adapter, zero at the start."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.layers import LayerNorm, Linear

KINDS = ("none", "linear", "norm_linear", "table", "concat", "direct")


def check_kind(kind: str) -> None:
    """Raise ValueError that lists the known kinds."""
    if kind not in KINDS:
        raise ValueError(f"memory.adapter: unknown {kind!r}; known: {', '.join(KINDS)}")


class MemoryAdapter(nn.Module):
    """x + phi(memory), phi(0) = 0, where memory is a prediction c as a soft embedding, c E (SCMDM).

    How the paper feeds c in is not known; these are the readings. "linear": W c E with W [D, D] from zero, the default;
    "norm_linear": W LN(c E); "table": c U with a table U [V, D] of its own, from zero; "concat": [x; c E] W' with W'
    from [I; 0], exact only in exact arithmetic; "direct": c E itself, which moves a trained network at once. The first
    three leave the network as it was, bit for bit, until they are trained.
    """

    kind: str
    hidden: int
    tokens: int
    dtype: str = "float32"

    def setup(self):
        check_kind(self.kind)
        if self.kind in ("linear", "norm_linear"):
            self.linear = Linear(self.hidden, bias=False, initializer="zeros", dtype=self.dtype)
        if self.kind == "norm_linear":
            self.norm = LayerNorm()
        if self.kind == "table":
            self.table = self.param("table", nn.initializers.zeros, (self.tokens, self.hidden), jnp.float32)
        if self.kind == "concat":
            self.kernel = self.param("kernel", identity_first, (2 * self.hidden, self.hidden), jnp.float32)

    def __call__(self, x: Float[Array, "B L D"], memory: Float[Array, "B L D"] | None) -> Float[Array, "B L D"]:
        """The embeddings with the memory; None is no memory, which is zeros."""
        if memory is None and self.kind != "concat" and not self.is_initializing():
            return x
        memory = jnp.zeros_like(x) if memory is None else memory
        if self.kind == "concat":
            both = jnp.concatenate([x, memory], axis=-1).astype(self.dtype)
            return jnp.matmul(both, self.kernel.astype(self.dtype), preferred_element_type=jnp.float32)
        if self.kind == "norm_linear":
            memory = self.norm(memory)
        if self.kind in ("linear", "norm_linear"):
            memory = self.linear(memory)
        return x + memory.astype(x.dtype)


def identity_first(key, shape, dtype=jnp.float32):
    """[I; 0]: the embeddings as they are, nothing of the memory."""
    del key
    return jnp.eye(*shape, dtype=dtype)
