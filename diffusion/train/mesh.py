"""Meshes and shardings: data parallel, fully sharded by shape, and a model axis; nothing else knows about devices."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Key, PyTree

AXES = ("data", "fsdp", "model")
BATCH = P(("data", "fsdp"))
# Below this size a leaf costs less to keep everywhere than to gather.
SMALL = 2**14


def make_mesh(data: int = -1, fsdp: int = 1, model: int = 1, devices=None) -> Mesh:
    """A mesh of axes (data, fsdp, model) over all devices; one axis may be -1 for "what is left".

    Raises:
      ValueError: when the axes do not multiply to the number of devices.
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
    return Mesh(np.array(devices).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def leaf_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """FSDP by shape: the largest axis that divides goes over "fsdp", the next over "model"; small leaves stay whole."""
    spec: list = [None] * len(shape)
    if math.prod(shape) < SMALL:
        return P()
    for name in ("fsdp", "model"):
        size = mesh.shape[name]
        free = [axis for axis in range(len(shape)) if spec[axis] is None and shape[axis] % size == 0]
        if size > 1 and free:
            spec[max(free, key=lambda axis: shape[axis])] = name
    return P(*spec)


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every leaf of a (shape-evaluated) state: parameters, moments and averages alike."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, leaf_spec(leaf.shape, mesh)), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples are spread over the data and fsdp axes."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """One whole copy on every device."""
    return NamedSharding(mesh, P())


def shards(mesh: Mesh) -> int:
    """Devices that a batch is divided among."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1, field: str = "train.batch") -> None:
    """Raise ValueError unless every device gets the same number of examples in every micro-batch."""
    pieces = shards(mesh) * accumulate
    if batch_size < 1 or accumulate < 1 or batch_size % pieces:
        raise ValueError(
            f"{field}: {batch_size} is not a multiple of {shards(mesh)} devices x {accumulate} micro-batches; "
            f"the next multiple is {max(1, -(-batch_size // pieces)) * pieces}"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Make global arrays from this host's rows."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_key(key: Key[Array, ""], mesh: Mesh) -> Key[Array, ""]:
    """The same key on every device of every host."""
    data = np.asarray(jax.random.key_data(key))
    return jax.jit(jax.random.wrap_key_data, out_shardings=replicated(mesh))(data)
