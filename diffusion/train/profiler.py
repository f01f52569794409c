"""A trace of some training steps by the profiler of JAX."""

import sys
from pathlib import Path

import jax
from tqdm import tqdm

from diffusion.train.state import TrainState

SKIPPED = 10  # steps before the trace, of which the first ones compile


class Profiler:
    """Traces `steps` steps into `folder`, after `SKIPPED` ones from the step `first`; none if `steps` is 0."""

    def __init__(self, folder: Path, first: int, steps: int):
        self.folder, self.steps = folder, steps
        self.begin, self.end = first + SKIPPED, first + SKIPPED + steps
        self.step = first
        self.active = False

    def before(self, step: int, state: TrainState) -> None:
        """Start or stop the trace before a step; `state` is the result of the previous one."""
        self.step = step
        if self.steps and step == self.begin:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self.folder)
            self.active = True
        elif self.active and step == self.end:
            jax.block_until_ready(state)
            self.stop(step)

    def stop(self, end: int) -> None:
        """Write the trace of the steps before `end`, and print its place."""
        self.active = False
        jax.profiler.stop_trace()
        tqdm.write(
            f"profile: steps {self.begin + 1} to {end} are in {self.folder}; `pip install xprof`, then "
            f"`xprof --logdir={self.folder}` shows them",
            file=sys.stderr,
        )

    def close(self) -> None:
        """Stop the trace where training ended during it, and say so where it ended before."""
        if self.active:
            self.stop(self.step + 1)
        elif self.steps and self.step < self.begin:
            tqdm.write(f"profile: no trace, training ended within {SKIPPED} steps", file=sys.stderr)
