"""Metrics go to JSON lines always, and to TensorBoard and Weights & Biases where they are installed."""

import importlib.util
import json
import os
from pathlib import Path


class Writer:
    """Append one record a call to `metrics.jsonl`, and mirror it to what is installed.

    TensorBoard needs the package tensorboardX; Weights & Biases needs wandb and the variable WANDB_PROJECT.
    A resumed run appends; records at or after `resume_step` were lost with the crash and are dropped first.
    """

    def __init__(self, directory: Path, name: str, config: dict, resume_step: int = 0):
        self.path = directory / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if parse_step(line) <= resume_step]
            self.path.write_text("".join(line + "\n" for line in kept))
        self.file = self.path.open("a")
        self.board = self.wandb = None
        if importlib.util.find_spec("tensorboardX"):
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

            self.board = SummaryWriter(str(directory / "tensorboard"), purge_step=resume_step)
        if importlib.util.find_spec("wandb") and os.environ.get("WANDB_PROJECT"):
            import wandb  # pyright: ignore[reportMissingImports]

            self.wandb = wandb.init(name=name, id=directory.name, config=config, dir=str(directory), resume="allow")

    def write(self, step: int, **values: float) -> None:
        """Record values at a step."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()
        if self.board:
            for key, value in values.items():
                self.board.add_scalar(key, value, step)
        if self.wandb:
            self.wandb.log(values, step=step)

    def close(self) -> None:
        """Flush and close every target."""
        self.file.close()
        if self.board:
            self.board.close()
        if self.wandb:
            self.wandb.finish()


def parse_step(line: str) -> float:
    """The step of a record; a line cut short by a crash sorts last, so that it is dropped."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")


def read_metrics(path: Path) -> list[dict]:
    """All complete records of a metrics file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if parse_step(line) != float("inf")]
