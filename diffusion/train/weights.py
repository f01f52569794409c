"""Weights to evaluate and sample with: one tree of averaged parameters in a folder, without the optimizer."""

import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from diffusion.train.checkpoint import check_shapes
from diffusion.train.mesh import state_shardings
from diffusion.types import Params


def save_weights(folder: Path, params: Params) -> None:
    """Write the tree; an older one in the same folder is replaced."""
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params)


def load_weights(folder: Path, init, mesh: Mesh) -> Params:
    """Read the tree onto a mesh.

    Raises:
      ValueError: when the folder holds no weights, or those of another model.
    """
    weights_exist(folder)
    shapes = jax.eval_shape(init, jax.random.key(0))
    shardings = state_shardings(shapes, mesh)
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )
    with ocp.StandardCheckpointer() as checkpointer:
        check_shapes(checkpointer.metadata(folder.absolute()).item_metadata, abstract, folder)
        return checkpointer.restore(folder.absolute(), abstract)


def weights_exist(folder: Path) -> None:
    """Raise ValueError unless the folder holds a complete tree of weights."""
    if not (folder / "_METADATA").exists():
        raise ValueError(f"checkpoint: {folder} holds no weights; write them with `launch.py train` or `convert`")
