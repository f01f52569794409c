"""The embedding of partially masked tokens, the input layer of MDM-Prime."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion.nets.layers import uniform_fan_in

MERGES = ("concat", "sum")


def check_embedding(digits: int, hidden: int, merge: str) -> None:
    """Raise ValueError if the merge is not known, or if the number of sub-tokens must divide `hidden` and does not."""
    if merge not in MERGES:
        raise ValueError(f"codec.merge: unknown {merge!r}; known: {', '.join(MERGES)}")
    if merge == "concat" and hidden % digits:
        raise ValueError(f"codec.digits: {digits} digits do not divide model.hidden={hidden}; set codec.merge=sum")


class SubtokenEmbedding(nn.Module):
    """e(y^i) = concat_j E[y^{ij}] or sum_j E[y^{ij}] over the l sub-tokens of token i (MDM-Prime).

    Row `base` of a table is the mask. With "concat", sub-token j fills the columns [j hidden / l, (j + 1) hidden / l),
    and l must divide `hidden`. The published code shares one table among all j; with `shared=False` every j has its own
    table, and all of them are stored as one of l (base + 1) rows (MDM-Prime-v2).

    Raises:
      ValueError: if l does not divide `hidden` with "concat", or if the merge is not known.
    """

    base: int
    digits: int
    hidden: int
    merge: str = "concat"
    shared: bool = True

    @nn.compact
    def __call__(self, state: Int[Array, "B N"]) -> Float[Array, "B L D"]:
        """Embed flattened sub-tokens, N = L l."""
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
