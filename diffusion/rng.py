"""Random keys as a tree: every draw is identified by (root, purpose, step, example) alone.

No key is stored in a training state or split along a chain. A resumed run, or a run with another batch size, number
of hosts or micro-batch size, therefore draws the same noise for the same example.
"""

import math
from typing import Literal, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from diffusion.types import Keys

GOLDEN_SECTION = (math.sqrt(5) - 1) / 2


class Draws(NamedTuple):
    """The randomness of one batch: one key and one stratified uniform number per example."""

    keys: Keys
    uniform: Float[Array, " B"]


def named(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """Derive the key of a purpose, such as "train" or "corrupt"."""
    return jax.random.fold_in(key, crc32(purpose.encode()))


def fold(keys: Keys, data: str | int | Int[Array, ""]) -> Keys:
    """Derive one key per example from a purpose or an integer."""
    number = crc32(data.encode()) if isinstance(data, str) else data
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def example_keys(key: Key[Array, ""], indices: Int[Array, " B"]) -> Keys:
    """Derive one key per example from the examples' indices."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def draws(root: Key[Array, ""], purpose: str, step: int | Int[Array, ""], size: int) -> Draws:
    """Derive the randomness of the `size` examples of a step.

    The uniform numbers are u_j = (u + s_j / n) mod 1 with one shared u and the strata s_j of a batch, the
    low-discrepancy times of VDM (arXiv 2107.00630). Each is uniform on [0, 1), and together they cover the interval
    evenly, which lowers the variance of a batch's loss. (MDLM's code draws one number in each of n strata.)
    """
    key = jax.random.fold_in(named(root, purpose), step)
    offset = jax.random.uniform(named(key, "stratum"))
    uniform = jnp.mod(offset + jnp.asarray(strata(size)) / size, 1.0)
    return Draws(example_keys(named(key, "examples"), jnp.arange(size)), uniform)


def strata(size: int) -> Int[np.ndarray, " B"]:
    """Return an order of 0 .. size - 1 of which every part of successive numbers is spread over the whole range.

    The devices of a mesh, which hold such parts of a batch, then have about equally many masks. It is j g mod size with
    a factor g near size times the golden section that has no common factor with size.
    """
    factor = max(1, round(size * GOLDEN_SECTION))
    while math.gcd(factor, size) > 1:
        factor += 1
    return np.arange(size) * factor % max(size, 1)


def uniform(keys: Keys, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Float[Array, "B ..."]:
    """Draw uniform numbers on [low, high), [B, *shape], with one key per example."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Draw standard normal numbers, [B, *shape], with one key per example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def gumbel(keys: Keys, shape: tuple[int, ...], mode: Literal["low", "high"] = "high") -> Float[Array, "B ..."]:
    """Draw standard Gumbel numbers, [B, *shape], with one key per example.

    Mode "high" resolves tail probabilities down to 1e-14, mode "low" down to 1e-7.
    """
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, mode=mode))(keys)


def bernoulli(keys: Keys, rate: float) -> Bool[Array, " B"]:
    """Draw one coin per example, true with probability `rate`."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)


def integers(keys: Keys, shape: tuple[int, ...], low: int, high: int) -> Int[Array, "B ..."]:
    """Draw uniform integers low .. high - 1, [B, *shape], with one key per example."""
    return jax.vmap(lambda key: jax.random.randint(key, shape, low, high))(keys)


def categorical(keys: Keys, logits: Float[Array, "B ... K"]) -> Int[Array, "B ..."]:
    """Draw one class per position from softmax(logits), with one key per example and Gumbel noise of mode "high"."""
    return jax.vmap(lambda key, row: jax.random.categorical(key, row, mode="high"))(keys, logits)
