"""Divergence of a training: a loss, a gradient or parameters that are not finite end it before they are saved."""

from pathlib import Path

import numpy as np
from jaxtyping import PyTree

from diffusion.train.state import TrainState
from diffusion.train.step import all_finite, non_finite
from diffusion.types import Params

DIVERGED = "training diverged"  # how every message of this error begins


class Diverged(RuntimeError):
    """The loss, the gradient or the parameters of the training in `directory` are not finite."""

    def __init__(self, step: int, bad: list[str], params: Params, directory: Path):
        self.directory = directory
        what = "; ".join([*bad, f"{non_finite(params)} are not finite"])
        super().__init__(
            f"{DIVERGED} at step {step}: {what}; lower optimizer.learning_rate or optimizer.clip, or raise "
            f"optimizer.warmup; the last good checkpoint is in {directory / 'checkpoints'}"
        )


def means(metrics: PyTree) -> dict[str, float]:
    """Return the means of metrics, pairs (total, count) by name, which are on the host."""
    return {key: float(total) / max(float(count), 1.0) for key, (total, count) in metrics.items()}


def not_finite(values: dict[str, float]) -> list[str]:
    """Return a text that names the values that are not finite, if there are any."""
    bad = [f"{key} = {value:g}" for key, value in values.items() if not np.isfinite(value)]
    return [", ".join(bad)] if bad else []


def check_state(state: TrainState, loss: float | None, step: int, directory: Path) -> None:
    """Raise Diverged unless the parameters, their average and a validation loss are finite, before they are saved."""
    bad = not_finite({} if loss is None else {"validation loss": loss})
    if bad or not bool(all_finite((state.params, state.ema))):
        raise Diverged(step, bad, state.params, directory)
