"""Checksums of arrays, by which damage to a file of weights is found, on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import KeyPath
from jaxtyping import Array, PyTree, Shaped, UInt32


def checksums(tree: PyTree) -> dict[str, int]:
    """Return a number for every array of a tree, which any change of a single element changes, by its path.

    It is the sum of (2 i + 1) b_i modulo 2^32 over the elements i, whose bits are the integer b_i: 2 i + 1 is odd, so
    that no change of one b_i is lost. Integers are summed, so that the number does not depend on the devices.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    numbers = jax.device_get(_checksums([leaf for _, leaf in leaves]))
    return {name_of(path): int(number) for (path, _), number in zip(leaves, numbers, strict=True)}


def name_of(path: KeyPath) -> str:
    """Return the path of a leaf as a name such as "blocks/kernel", which the types of containers do not change."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def damaged(tree: PyTree, recorded: dict[str, int]) -> list[str]:
    """Return the paths of the arrays that differ from their record; arrays without one are not checked."""
    return [name for name, number in checksums(tree).items() if recorded.get(name, number) != number]


@jax.jit
def _checksums(arrays: list[Array]) -> list[UInt32[Array, ""]]:
    return [_checksum(array) for array in arrays]


def _checksum(array: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    if array.dtype == jnp.bool_ or array.dtype.itemsize == 8:
        bits = array.astype(jnp.uint32)
    else:
        bits = jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32)
    index = jnp.zeros(array.shape, jnp.uint32)
    for axis, size in enumerate(array.shape):
        index = index * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    return jnp.sum((2 * index + 1) * bits, dtype=jnp.uint32)
