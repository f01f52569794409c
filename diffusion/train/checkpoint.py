"""Asynchronous checkpoints with Orbax, which can be restored on any number of devices."""

import math
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epy
from jaxtyping import PyTree

from diffusion.storage import ObjectPath, fetched, path_of, remove, scratch, upload
from diffusion.train.integrity import checksums, damaged, name_of

with epy.lazy_imports():
    import orbax.checkpoint as ocp


class Checkpoints:
    """The checkpoints of one run, in one folder.

    The `latest` most recent checkpoints are retained, and the one with the lowest loss.
    """

    def __init__(self, directory: str | Path, latest: int = 2, read_only: bool = False):
        self.place = path_of(directory)
        self.directory = native(self.place)
        keep = ocp.checkpoint_managers.preservation_policy
        best = keep.BestN(get_metric_fn=loss_of, reverse=True, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            best_fn=loss_of,  # without it losses are not written, and the best checkpoint is forgotten on restart
            best_mode="min",
            preservation_policy=keep.AnyPreservationPolicy([keep.LatestN(latest), best]),
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            create=not read_only,
        )
        self.manager = ocp.CheckpointManager(
            self.directory, item_handlers=ocp.StandardCheckpointHandler(), options=options
        )

    def steps(self) -> list[int]:
        """Return the saved steps in increasing order."""
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: PyTree, loss: float | None = None) -> None:
        """Start to write a checkpoint in the background; `loss`, if it is known, decides which one is the best."""
        metrics = {"loss": math.inf if loss is None else float(loss)}
        args = ocp.args.StandardSave(state)
        self.manager.save(step, args=args, metrics=metrics, custom_metadata={"checksums": checksums(state)})
        self.share()

    def restore(self, abstract: PyTree, last: int | None = None) -> PyTree | None:
        """Return the most recent readable checkpoint with the shardings of `abstract`, or None without one.

        With `last` those of later steps are passed over.

        A checkpoint that cannot be read (truncated or partly deleted), or whose arrays are not those that were written,
        is moved to another folder with a warning.

        Raises:
          ValueError: if a readable checkpoint belongs to another model.
        """
        for step in reversed([step for step in self.steps() if last is None or step <= last]):
            try:
                check_shapes(self.manager.item_metadata(step), abstract, self.directory / str(step))
                state = self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
                check_sums(state, self.manager.metadata(step).custom_metadata)
                return state
            except CheckpointMismatch:
                raise
            except Exception as error:
                logging.warning(
                    "checkpoint %s cannot be read (%s); falling back to the one before it",
                    self.directory / str(step),
                    str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__,
                )
                self.discard(step)
        return None

    def discard(self, step: int) -> None:
        """Move an unreadable checkpoint to another folder, so that its step can be saved again."""
        if jax.process_index() == 0:
            source = self.directory / str(step)
            target = self.directory.parent / f"{self.directory.name}-unreadable" / str(step)
            remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists():
                source.rename(target)
        self.manager.reload()

    def delete_after(self, step: int) -> None:
        """Delete the checkpoints of later steps, which are computed again."""
        later = [each for each in self.steps() if each > step]
        for each in later:
            self.manager.delete(each)
        if later:
            self.share()

    def share(self) -> None:
        """Copy the checkpoints to a store that Orbax does not write to."""
        if isinstance(self.place, ObjectPath) and self.directory != self.place:
            self.manager.wait_until_finished()
            upload(self.directory, self.place)

    def wait(self) -> None:
        """Wait until all checkpoints are on disk."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Wait until all checkpoints are on disk, and stop the threads of the manager."""
        self.manager.wait_until_finished()
        self.manager.close()


def native(place: Path) -> Path:
    """Where Orbax reads and writes a folder: in its place, but for S3, which it has no driver for, in a local copy."""
    if isinstance(place, ObjectPath) and place.scheme == "s3":
        return fetched(place, scratch(place))
    return place.absolute()


def loss_of(metrics: Any) -> float:
    """Return the loss of a checkpoint's metrics, infinite where they are missing."""
    return metrics["loss"] if metrics else math.inf


def check_sums(tree: PyTree, metadata: Any) -> None:
    """Raise OSError for arrays that are not those whose checksums are in the metadata; without checksums do nothing."""
    if wrong := damaged(tree, (metadata or {}).get("checksums", {})):
        raise OSError(f"{len(wrong)} arrays are not those that were written (first: {wrong[0]})")


class CheckpointMismatch(ValueError):
    """A checkpoint of another model."""


def check_shapes(saved: Any, expected: PyTree, path: Path) -> None:
    """Raise CheckpointMismatch, with the first difference, unless `saved` has the leaves and shapes of `expected`."""
    saved = getattr(saved, "tree", saved)
    if saved is None:
        raise OSError("its metadata are missing")
    arrays = named_arrays(saved)
    for name, array in named_arrays(expected).items():
        found, shape = arrays.get(name), tuple(array.shape)
        if found is None or tuple(found.shape) != shape:
            difference = "is absent" if found is None else f"has shape {tuple(found.shape)}"
            raise CheckpointMismatch(
                f"checkpoint: in {path} the array {name} {difference} where the config wants {shape}; "
                "set the config to the run that wrote it, or give another --workdir"
            )


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """Return the leaves of a tree that have a shape, by their names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {name_of(path): leaf for path, leaf in leaves if hasattr(leaf, "shape")}
