"""Weights for evaluation and sampling: averaged parameters in a folder, without the optimizer state."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from etils import epy
from jax.sharding import Mesh

from diffusion.storage import ObjectPath, remove, upload
from diffusion.train.checkpoint import check_shapes, native
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
        checkpointer.save(place, params)
    if isinstance(folder, ObjectPath) and place != folder:
        upload(place, folder)


def load_weights(folder: Path, init, mesh: Mesh, added: Sequence[str] = ()) -> Params:
    """Load parameters onto a mesh; parts in `added` that the folder does not have are initialized with `init`.

    `added` are top-level names of the tree.

    Raises:
      ValueError: if the folder does not contain weights, or contains those of another model.
    """
    check_weights(folder)
    folder = native(within(folder))
    expected = abstract(jax.eval_shape(init, jax.random.key(0)), mesh)
    with ocp.StandardCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata
        new = [name for name in added if name in expected and name not in saved]
        old = {name: part for name, part in expected.items() if name not in new}
        if extra := [name for name in getattr(saved, "tree", saved) if name not in expected]:
            raise ValueError(
                f"checkpoint: {folder} holds '{extra[0]}', which this network has not; set the config to the run that "
                "wrote it, such as --config.memory.adapter=linear"
            )
        check_shapes(saved, old, folder)
        params = checkpointer.restore(folder, old)
    if not new:
        return params
    shardings = jax.tree.map(lambda leaf: leaf.sharding, {name: expected[name] for name in new})
    initial = jax.jit(lambda key: {name: init(key)[name] for name in new}, out_shardings=shardings)
    parts = params | initial(jax.random.key(0))
    return {name: parts[name] for name in expected}


def read_weights(folder: Path) -> Params:
    """Return the parameters of a folder as arrays on the host, each in the type that it is stored in.

    Raises:
      ValueError: if the folder does not contain weights.
    """
    check_weights(folder)
    folder = native(within(folder))
    with ocp.PyTreeCheckpointer() as checkpointer:
        saved = checkpointer.metadata(folder).item_metadata
        wanted = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), getattr(saved, "tree", saved))
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(restore_args=wanted))


def within(folder: Path) -> Path:
    """Return the folder of the weights, which is `weights` in that of a job or of a conversion."""
    return folder / "weights" if (folder / "weights" / "_METADATA").exists() else folder


def check_weights(folder: Path) -> None:
    """Raise ValueError unless the folder, or `weights` in it, contains complete weights."""
    if not (within(folder) / "_METADATA").exists():
        raise ValueError(f"checkpoint: {folder} holds no weights; write them with `launch.py train` or `convert`")
