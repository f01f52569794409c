"""Meshes and shardings: data parallelism, FSDP by shape, and a model axis."""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key, PyTree

AXES = ("data", "fsdp", "model")
BATCH = P(("data", "fsdp"))
# Smaller leaves are replicated, because a copy on every device costs less than a gather.
MIN_SHARDED_SIZE = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1, devices=None) -> Mesh:
    """Return a mesh with axes (data, fsdp, model) over all devices; one axis of -1 has the remaining devices.

    Of several TPU slices, which a slower network connects, the data axis goes over the slices, and the devices of
    every group of the other axes lie in one slice.

    Raises:
      ValueError: if the product of the axes is not the number of devices, or fsdp x model does not divide a slice.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, model]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(
            f"mesh: axes must be positive and at most one may be -1, not {dict(zip(AXES, sizes, strict=True))}"
        )
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh: data x fsdp x model = {' x '.join(map(str, sizes))} does not cover {len(devices)} devices; "
            "set --config.mesh.data=-1 or axes that multiply to the device count"
        )
    placed = on_slices(devices, sizes) if devices[0].platform == "tpu" else np.array(devices).reshape(sizes)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * 3)


def on_slices(devices: list, sizes: list[int]) -> np.ndarray:
    """Return TPU devices as an array of these sizes (data, fsdp, model), slice by slice along the data axis.

    Within a slice they are in the order of its torus where every process then holds consecutive rows of a batch, as
    the batches of a host are (`put_batch`), and in the order of the list otherwise.

    Raises:
      ValueError: if fsdp x model does not divide the devices of a slice.
    """
    data, fsdp, model = sizes
    slices = len(set(map(slice_of, devices)))
    if data % slices:
        raise ValueError(
            f"mesh: fsdp x model = {fsdp} x {model} does not divide the {len(devices) // slices} devices of each of "
            f"{slices} slices; set --config.mesh.fsdp and --config.mesh.model so that their product does"
        )
    inside, across = (data // slices, fsdp, model), (slices, 1, 1)
    try:
        torus = (
            mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
            if slices == 1
            else mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
        )
    except (AssertionError, NotImplementedError, ValueError):  # for a part of a slice, or for sizes without an order
        torus = None
    if torus is not None and has_consecutive_rows(torus):
        return torus
    return np.array(sorted(devices, key=slice_of)).reshape(sizes)


def slice_of(device: Any) -> int:
    """Return the number of a device's slice; devices of a topology of one slice have none."""
    return getattr(device, "slice_index", 0)


def has_consecutive_rows(devices: np.ndarray) -> bool:
    """Return whether the parts of a batch, over (data, fsdp), are those of process 0, then of process 1, and so on."""
    processes = [[device.process_index for device in group] for group in devices.reshape(-1, devices.shape[2])]
    first = [group[0] for group in processes]
    return first == sorted(first) and all(len(set(group)) == 1 for group in processes)


def leaf_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Return the partition of a leaf: its largest divisible axis over "fsdp", the next one over "model".

    Leaves smaller than `MIN_SHARDED_SIZE` are replicated.
    """
    spec: list = [None] * len(shape)
    if math.prod(shape) < MIN_SHARDED_SIZE:
        return P()
    for name in ("fsdp", "model"):
        size = mesh.shape[name]
        free = [axis for axis in range(len(shape)) if spec[axis] is None and shape[axis] % size == 0]
        if size > 1 and free:
            spec[max(free, key=lambda axis: shape[axis])] = name
    return P(*spec)


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the sharding of every leaf of a state, which may consist of shapes only."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf_spec(leaf.shape, mesh)), tree)


def abstract(shapes: PyTree, mesh: Mesh) -> PyTree:
    """Return the shapes and types of a state with the sharding of every leaf."""
    shardings = state_shardings(shapes, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, over the data and fsdp axes."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding with a full copy on every device."""
    return NamedSharding(mesh, P())


def shards(mesh: Mesh) -> int:
    """Return the number of devices over which a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1, field: str = "train.batch") -> None:
    """Raise ValueError unless every device has the same number of examples in every micro-batch."""
    pieces = shards(mesh) * accumulate
    if batch_size < 1 or accumulate < 1 or batch_size % pieces:
        raise ValueError(
            f"{field}: {batch_size} is not a multiple of {shards(mesh)} devices x {accumulate} micro-batches; "
            f"the next multiple is {max(1, -(-batch_size // pieces)) * pieces}"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return global arrays from the rows of this host."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_key(key: Key[Array, ""], mesh: Mesh) -> Key[Array, ""]:
    """Return the key, replicated on every device of every host."""
    data = np.asarray(jax.random.key_data(key))
    return jax.jit(jax.random.wrap_key_data, out_shardings=replicated(mesh))(data)
