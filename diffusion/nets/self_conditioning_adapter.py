"""The adapter that adds the last prediction of a network to its input (SCMDM)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.nets.layers import Linear


class SelfConditioningAdapter(nn.Module):
    """x + W c E for a prediction c [V] and its soft embedding c E [D], with W [D, D] zero at the start (SCMDM).

    The network before training is bitwise equal to the base network. The paper does not specify the map; a layer norm
    before W, a table of its own in place of E, a concatenation with x and the plain sum x + c E are not offered.
    """

    hidden: int
    dtype: str = "float32"

    def setup(self):
        self.linear = Linear(self.hidden, bias=False, initializer="zeros", dtype=self.dtype)

    def __call__(self, x: Float[Array, "B L D"], memory: Float[Array, "B L D"] | None) -> Float[Array, "B L D"]:
        """Add the self-conditioning input to the embeddings; None is equal to zeros."""
        if memory is None and not self.is_initializing():
            return x
        return x + self.linear(jnp.zeros_like(x) if memory is None else memory).astype(x.dtype)
