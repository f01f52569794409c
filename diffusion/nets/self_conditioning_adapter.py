"""The adapter that adds the last prediction of a network to its input (SCMDM)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.layers import LayerNorm, Linear

KINDS = ("none", "linear", "norm_linear", "table", "concat", "direct")


def check_kind(kind: str) -> None:
    """Raise ValueError, with the list of kinds, if the kind is not known."""
    if kind not in KINDS:
        raise ValueError(f"memory.adapter: unknown {kind!r}; known: {', '.join(KINDS)}")


class SelfConditioningAdapter(nn.Module):
    """x + phi(c E) with phi(0) = 0, for a prediction c [V] and its soft embedding c E [D] (SCMDM).

    The paper does not specify phi. "linear": W c E with W [D, D] zero at the start, the default. "norm_linear":
    W LN(c E). "table": c U with a separate table U [V, D], zero at the start. "concat": [x; c E] W' with W' = [I; 0] at
    the start. "direct": c E. With the first three, the network before training is bitwise equal to the base network;
    with "concat" it is equal up to rounding, and with "direct" it differs.
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
        """Add the self-conditioning input to the embeddings; None is equal to zeros."""
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
    """Return [I; 0], which keeps the embeddings and ignores the self-conditioning input."""
    del key
    return jnp.eye(*shape, dtype=dtype)
