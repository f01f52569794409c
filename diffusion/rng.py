"""Random keys as a tree: every draw is named by (root, purpose, step, example) and by nothing else.

No key is stored in a training state or split along a chain, so that a resumed run, another batch size, another
number of hosts or another micro-batch draws the same noise for the same example.
"""

from typing import Literal, NamedTuple
from zlib import crc32

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from diffusion.types import Keys


class Draws(NamedTuple):
    """The randomness of one batch: one key an example, and one stratified uniform an example."""

    keys: Keys
    uniform: Float[Array, " B"]


def named(key: Key[Array, ""], purpose: str) -> Key[Array, ""]:
    """Derive the key of a purpose, such as "train" or "corrupt"."""
    return jax.random.fold_in(key, crc32(purpose.encode()))


def fold(keys: Keys, data: str | int | Int[Array, ""]) -> Keys:
    """Derive one key an example from a purpose or an integer."""
    number = crc32(data.encode()) if isinstance(data, str) else data
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def example_keys(key: Key[Array, ""], indices: Int[Array, " B"]) -> Keys:
    """One key for each example, by the example's index."""
    return jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)


def draws(root: Key[Array, ""], purpose: str, step: int | Int[Array, ""], size: int) -> Draws:
    """Randomness for the `size` examples of a step.

    The uniforms are the low-discrepancy times of MDLM, u_j = (u + j / n) mod 1 with one shared u: each is uniform
    on [0, 1), together they cover it evenly, which lowers the variance of a batch's loss.
    """
    key = jax.random.fold_in(named(root, purpose), step)
    offset = jax.random.uniform(named(key, "stratum"))
    uniform = jnp.mod(offset + jnp.arange(size) / size, 1.0)
    return Draws(example_keys(named(key, "examples"), jnp.arange(size)), uniform)


def uniform(keys: Keys, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Float[Array, "B ..."]:
    """Uniforms on [low, high), from one key per example."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=low, maxval=high))(keys)


def normal(keys: Keys, shape: tuple[int, ...]) -> Float[Array, "B ..."]:
    """Standard normal noise, from one key per example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def gumbel(keys: Keys, shape: tuple[int, ...], mode: Literal["low", "high"] = "high") -> Float[Array, "B ..."]:
    """Gumbel noise, from one key per example; in mode "high" its tail reaches 1e-14, in mode "low" 1e-7."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, mode=mode))(keys)


def bernoulli(keys: Keys, rate: float) -> Bool[Array, " B"]:
    """One coin per example, true with probability `rate`."""
    return jax.vmap(lambda key: jax.random.bernoulli(key, rate))(keys)


def integers(keys: Keys, shape: tuple[int, ...], low: int, high: int) -> Int[Array, "B ..."]:
    """Integers low .. high - 1, from one key per example."""
    return jax.vmap(lambda key: jax.random.randint(key, shape, low, high))(keys)


def categorical(keys: Keys, logits: Float[Array, "B ... K"]) -> Int[Array, "B ..."]:
    """One categorical draw per position, with Gumbel noise whose tail reaches 1e-14 (mode "high")."""
    return jax.vmap(lambda key, row: jax.random.categorical(key, row, mode="high"))(keys, logits)
