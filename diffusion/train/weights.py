"""Weights for evaluation and sampling: averaged parameters in a folder, without the optimizer state."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epy
from jax.sharding import Mesh
from jax.tree_util import KeyPath
from jaxtyping import PyTree

from diffusion.storage import ObjectPath, remove, upload
from diffusion.train.checkpoint import check_shapes, check_sums, named_arrays, native
from diffusion.train.integrity import checksums, name_of
from diffusion.train.mesh import abstract
from diffusion.types import Params

with epy.lazy_imports():
    import orbax.checkpoint as ocp


def save_weights(folder: Path, params: Params) -> None:
    """Write the parameters, and replace previous ones in the folder."""
    place = native(folder)
    if jax.process_index() == 0:
        remove(folder)
        remove(place)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(place, params, custom_metadata={"checksums": checksums(params)})
    if isinstance(folder, ObjectPath) and place != folder:
        upload(place, folder)


def load_weights(folder: Path, init, mesh: Mesh, added: Sequence[str] = ()) -> Params:
    """Load parameters onto a mesh; parts in `added` that the folder does not have are initialized with `init`.

    `added` are top-level names of the tree.

    Raises:
      ValueError: if the folder does not contain weights, or contains those of another model, or damaged ones.
    """
    check_weights(folder)
    place = within(folder)
    folder = native(place)
    expected = abstract(jax.eval_shape(init, jax.random.key(0)), mesh)
    with ocp.StandardCheckpointer() as checkpointer:
        with undamaged(place):
            saved, sums = metadata_of(checkpointer, folder)
        new = [name for name in added if name in expected and name not in saved]
        old = {name: part for name, part in expected.items() if name not in new}
        if extra := [name for name in saved if name not in expected]:
            raise ValueError(
                f"checkpoint: {folder} holds '{extra[0]}', which this network has not; set the config to the run that "
                "wrote it, such as --config.memory.adapter=linear"
            )
        check_shapes(saved, old, folder)
        with undamaged(place):
            stored = checkpointer.restore(folder, in_stored_types(old, saved))
            check_sums(stored, sums)
    params = jax.tree.map(lambda array, wanted: array.astype(wanted.dtype), stored, old)
    if not new:
        return params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, {name: expected[name] for name in new})
    initial = jax.jit(lambda key: {name: init(key)[name] for name in new}, out_shardings=shardings)
    parts = params | initial(jax.random.key(0))
    return {name: parts[name] for name in expected}


def in_stored_types(expected: PyTree, saved: PyTree) -> PyTree:
    """Return the expected arrays with the types of the saved ones, whose checksums are of their bits."""
    types = {name: leaf.dtype for name, leaf in named_arrays(saved).items()}

    def stored(path: KeyPath, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, types[name_of(path)], sharding=leaf.sharding)

    return jax.tree_util.tree_map_with_path(stored, expected)


def read_weights(folder: Path) -> Params:
    """Return the parameters of a folder as arrays on the host, each in the type that it is stored in.

    Raises:
      ValueError: if the folder does not contain weights, or contains damaged ones.
    """
    check_weights(folder)
    place = within(folder)
    folder = native(place)
    with ocp.PyTreeCheckpointer() as checkpointer, undamaged(place):
        saved, sums = metadata_of(checkpointer, folder)
        wanted = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), saved)
        params = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=wanted))
        check_sums(params, sums)
    return params


def metadata_of(checkpointer: Any, folder: Path) -> tuple[Any, Any]:
    """Return the tree of shapes of a folder of weights, and the metadata with their checksums.

    Raises:
      OSError: for metadata that cannot be read.
    """
    metadata = checkpointer.metadata(folder)
    saved = getattr(metadata.item_metadata, "tree", metadata.item_metadata)
    if not isinstance(saved, dict):
        raise OSError("their metadata cannot be read")
    return saved, metadata.custom_metadata


@contextlib.contextmanager
def undamaged(folder: Path) -> Iterator[None]:
    """Raise ValueError, with what to do, where reading or checking the weights of a folder fails."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        record = folder.parent / "result.json"
        remedy = f"delete {record} and give the command again, which writes them from the last checkpoint"
        if not record.exists():
            remedy = "convert or copy them again"
        raise ValueError(f"checkpoint: the weights in {folder} are damaged ({reason}); {remedy}") from error


def within(folder: Path) -> Path:
    """Return the folder of the weights, which is `weights` in that of a job or of a conversion."""
    return folder / "weights" if (folder / "weights" / "_METADATA").exists() else folder


def check_weights(folder: Path) -> None:
    """Raise ValueError unless the folder, or `weights` in it, contains complete weights."""
    if not (within(folder) / "_METADATA").exists():
        raise ValueError(f"checkpoint: {folder} holds no weights; write them with `launch.py train` or `convert`")
