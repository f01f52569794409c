"""Writers of metrics to JSON lines, and to TensorBoard and Weights & Biases if they are installed."""

import importlib.util
import json
import os
from pathlib import Path

from diffusion.storage import Appender, atomic_write, scratch


class Writer:
    """A writer that appends one record per call to `metrics.jsonl` and to installed loggers.

    TensorBoard needs the package tensorboardX; Weights & Biases needs wandb and the variable WANDB_PROJECT. A resumed
    run first deletes the records of steps after `resume_step`, which it repeats.
    """

    def __init__(self, directory: Path, name: str, config: dict, resume_step: int = 0):
        self.path = directory / "metrics.jsonl"
        if self.path.exists():
            lines = [line for line in text_of(self.path).splitlines() if parse_step(line) <= resume_step]
            atomic_write(self.path, "".join(line + "\n" for line in lines))
        self.file = Appender(self.path)
        directory = scratch(directory)  # loggers have drivers of their own for stores, or none
        self.board = self.wandb = None
        if importlib.util.find_spec("tensorboardX"):
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

            self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step)
        if importlib.util.find_spec("wandb") and os.environ.get("WANDB_PROJECT"):
            import wandb  # pyright: ignore[reportMissingImports]

            options = dict(name=name, id=directory.name, config=config, dir=str(directory), resume="allow")
            self.wandb = wandb.init(**options, reinit="create_new")  # trainings of one program have runs of their own

    def write(self, step: int, **values: float) -> None:
        """Write the values of a step."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        if self.board:
            for key, value in values.items():
                self.board.add_scalar(key, value, step)
        if self.wandb:
            self.wandb.log(values, step=step)

    def put(self) -> None:
        """Let others see the records so far, of which an object store has none before."""
        self.file.put()

    def close(self) -> None:
        """Close the file and all loggers."""
        self.file.close()
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()


def text_of(path: Path) -> str:
    """Return the text of a file of metrics, of which damaged bytes spoil their own lines alone."""
    return path.read_bytes().decode(errors="replace")


def parse_step(line: str) -> float:
    """Return the step of a record, or infinity for an incomplete line after a crash, so that it is deleted."""
    try:
        record = json.loads(line)
        whole = all(isinstance(value, int | float) for value in record.values())
        return record["step"] if whole else float("inf")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return float("inf")


def read_metrics(path: Path) -> list[dict]:
    """Return all complete records of a file of metrics, or none without a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in text_of(path).splitlines() if parse_step(line) != float("inf")]
