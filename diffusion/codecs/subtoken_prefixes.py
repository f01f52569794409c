"""The sub-tokens that may follow others in the code of a token, for autoregressive models of sub-tokens."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffusion.categorical import EXCLUDED
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.types import Symbols


def continuations(codec: SubtokenCodec) -> Bool[np.ndarray, "M b"]:
    """Whether the code of some token has sub-token v after prefix m, for all prefixes that are shorter than a code.

    Prefixes are numbered as the nodes of a tree: the empty one is 0, and prefix m followed by v is b m + 1 + v.
    """
    allowed = np.zeros((sum(codec.base**place for place in range(codec.digits)), codec.base), bool)
    prefix = np.zeros(codec.vocabulary, np.int64)
    for values in codec.table:
        allowed[prefix, values] = True
        prefix = codec.base * prefix + 1 + values
    return allowed


def prefixes(codec: SubtokenCodec, inputs: Symbols) -> Int[Array, "B N"]:
    """The number of the prefix before every position, for sub-tokens that are shifted right by one start symbol."""
    places = jnp.asarray(inputs).reshape(len(inputs), -1, codec.digits)
    numbers = [jnp.zeros_like(places[..., 0])]
    for place in range(1, codec.digits):
        numbers.append(codec.base * numbers[-1] + 1 + places[..., place])
    return jnp.stack(numbers, axis=-1).reshape(inputs.shape)


def restrict(
    codec: SubtokenCodec, logits: Float[Array, "*shape K"], prefix: Int[Array, "*shape"]
) -> Float[Array, "*shape K"]:
    """Return float32 logits in which classes that no token's code has after the prefix have no mass.

    With these logits the probabilities p(y_1) p(y_2 | y_1) .. p(y_l | y_<l) of the codes of tokens sum to 1: the mass
    of codes of no token is distributed among those that remain, digit by digit.
    """
    table = np.pad(continuations(codec), ((0, 0), (0, logits.shape[-1] - codec.base)))
    allowed = jnp.take(jnp.asarray(table), prefix, axis=0)
    return jnp.where(allowed, logits.astype(jnp.float32), EXCLUDED)
