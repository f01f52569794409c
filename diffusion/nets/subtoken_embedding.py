"""Embedding of half-known tokens: Prime's input layer, in front of an unchanged backbone."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.layers import uniform_fan_in

MERGES = ("concat", "sum")


def check_embedding(digits: int, hidden: int, merge: str) -> None:
    """Raise ValueError for an unknown merge, or digits that do not divide `hidden`."""
    if merge not in MERGES:
        raise ValueError(f"codec.merge: unknown {merge!r}; known: {', '.join(MERGES)}")
    if merge == "concat" and hidden % digits:
        raise ValueError(f"codec.digits: {digits} digits do not divide model.hidden={hidden}; set codec.merge=sum")


class DigitEmbedding(nn.Module):
    """e(y^i) = concat_j E[y^{ij}], or their sum; row `base` of a table is the masked digit (MDM-Prime).

    "concat" gives digit j the columns [j hidden / l, (j + 1) hidden / l) and needs l to divide hidden; the published
    code shares one table among the digit places. `shared=False` gives every place its own, packed as one table of
    l (base + 1) rows (MDM-Prime-v2).

    Raises:
      ValueError: when l does not divide hidden, or for an unknown merge.
    """

    base: int
    digits: int
    hidden: int
    merge: str = "concat"
    shared: bool = True

    @nn.compact
    def __call__(self, state: Int[Array, "B N"]) -> Float[Array, "B L D"]:
        check_embedding(self.digits, self.hidden, self.merge)
        width = self.hidden // self.digits if self.merge == "concat" else self.hidden
        rows = (self.base + 1) * (1 if self.shared else self.digits)
        table = self.param("table", uniform_fan_in(width), (rows, width), jnp.float32)
        state = state.reshape(len(state), -1, self.digits)
        if not self.shared:
            state = state + (jnp.arange(self.digits) * (self.base + 1))[None, None]
        embedded = jnp.take(table, state, axis=0)
        if self.merge == "sum":
            return jnp.sum(embedded, axis=2)
        return embedded.reshape(*state.shape[:2], self.hidden)
