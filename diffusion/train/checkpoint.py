"""Checkpoints through Orbax: asynchronous, retained by recency and by quality, restored on any device count."""

import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jaxtyping import PyTree
from orbax.checkpoint.checkpoint_managers import preservation_policy as keep


class Checkpoints:
    """The checkpoints of one run, in one folder.

    The `latest` newest are kept, and the one with the lowest metric.
    """

    def __init__(self, directory: str | Path, latest: int = 2, read_only: bool = False):
        self.directory = Path(directory).absolute()
        best = keep.BestN(
            get_metric_fn=lambda metrics: metrics["loss"], reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep.AnyPreservationPolicy([keep.LatestN(latest), best]),
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            create=not read_only,
        )
        self.manager = ocp.CheckpointManager(
            self.directory, item_handlers=ocp.StandardCheckpointHandler(), options=options
        )

    def steps(self) -> list[int]:
        """Saved steps, oldest first."""
        return sorted(self.manager.all_steps())

    def save(self, step: int, state: PyTree, loss: float | None = None) -> None:
        """Start writing; training goes on meanwhile."""
        metrics = None if loss is None else {"loss": float(loss)}
        self.manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def restore(self, abstract: PyTree) -> PyTree | None:
        """The newest checkpoint that can be read, laid out as `abstract`, or None when there is none.

        One that cannot be read (truncated, half deleted) is put aside with a warning, and the one before it is taken.

        Raises:
          ValueError: when a readable checkpoint holds another model.
        """
        for step in reversed(self.steps()):
            try:
                check_shapes(self.manager.item_metadata(step), abstract, self.directory / str(step))
                return self.manager.restore(step, args=ocp.args.StandardRestore(abstract))
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
        """Put an unreadable checkpoint aside, so that its step can be saved again."""
        if jax.process_index() == 0:
            broken = self.directory / str(step)
            aside = self.directory.parent / f"{self.directory.name}-unreadable" / str(step)
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            if broken.exists():
                shutil.move(broken, aside)
        self.manager.reload()

    def wait(self) -> None:
        """Block until what was started is on disk."""
        self.manager.wait_until_finished()

    def close(self) -> None:
        """Finish writing and release the manager's threads."""
        self.manager.wait_until_finished()
        self.manager.close()


class CheckpointMismatch(ValueError):
    """A checkpoint of another model."""


def check_shapes(saved: Any, wanted: PyTree, where: Path) -> None:
    """Raise CheckpointMismatch, naming the first leaf, unless both trees have the same leaves and shapes."""
    saved = getattr(saved, "tree", saved)
    if saved is None:
        raise OSError("its metadata are missing")
    shapes = dict(named_shapes(saved))
    for name, shape in named_shapes(wanted):
        if shapes.get(name, shape) != shape or name not in shapes:
            found = "is absent" if name not in shapes else f"has shape {shapes[name]}"
            raise CheckpointMismatch(
                f"checkpoint: in {where} the array {name} {found} where the config wants {shape}; "
                "set the config to the run that wrote it, or give another --workdir"
            )


def named_shapes(tree: PyTree) -> list[tuple[str, tuple[int, ...]]]:
    """(path, shape) of every array leaf, with paths that do not depend on the container's type."""

    def name(path) -> str:
        parts = (getattr(p, "key", None) or getattr(p, "name", None) or getattr(p, "idx", None) for p in path)
        return "/".join("0" if part is None else str(part) for part in parts)

    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return [(name(path), tuple(leaf.shape)) for path, leaf in leaves if hasattr(leaf, "shape")]
