"""The axes that split a batch over devices, the constraint that keeps arrays split, and the axis of a population."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Int

BATCH_AXES = ("data", "fsdp")
MEMBERS = "members"  # the axis of `jax.vmap` over several trainings


def automatic_axes() -> dict[str, int]:
    """Return the sizes of the automatically partitioned axes of the current mesh; empty without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }


def batch_axes(batch: int) -> tuple[str, ...]:
    """Return the mesh axes among (data, fsdp) that split a batch, or () if they do not divide its size."""
    axes = automatic_axes()
    names = tuple(name for name in BATCH_AXES if name in axes)
    return names if names and batch % math.prod(axes[name] for name in names) == 0 else ()


def batch_shards(batch: int) -> int:
    """Return the number of parts into which the current mesh splits a batch."""
    axes = automatic_axes()
    return math.prod(axes[name] for name in batch_axes(batch))


def shard_batch(x: Array) -> Array:
    """Constrain the leading axis to the mesh axes (data, fsdp); the identity without a mesh.

    Without this constraint the partitioner may gather activations, which takes tens of gigabytes on a large mesh.
    """
    axes = batch_axes(x.shape[0])
    if not axes:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *(None,) * (x.ndim - 1)))


def most(count: Int[Array, ""]) -> Int[Array, ""]:
    """Return the largest count among trainings that are mapped together; the count itself elsewhere.

    A conditional on it then remains one, where `jax.vmap` would compute both branches.
    """
    try:
        jax.lax.axis_size(MEMBERS)
    except NameError:
        return count
    return jax.lax.pmax(count, MEMBERS)
