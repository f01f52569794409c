"""The progress bar of training, and the rates that it shows."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax
from tqdm import tqdm

from diffusion.train.hardware import memory_in_use, peak


class Meter:
    """The progress bar, with throughput, utilization and remaining time; the time of evaluations is excluded.

    `members` trainings are one program. The tokens of a step, and `flops()`, are those of one of them.
    """

    def __init__(
        self,
        name: str,
        start: int,
        steps: int,
        members: int,
        tokens: int,
        flops: Callable[[], float] | None,
        show: bool,
    ):
        self.members, self.tokens = members, tokens
        interactive = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps,
            initial=start,
            desc=name,
            unit="step",
            disable=not show,
            mininterval=0.5 if interactive else 15,
            dynamic_ncols=interactive,
            ncols=None if interactive else 140,
        )
        self.step, self.clock, self.idle = start, time.perf_counter(), 0.0
        self.peak = peak(jax.devices()[0].device_kind)
        self.flops = members * flops() if flops and self.peak else 0.0
        self.devices = jax.device_count()

    def update(self, step: int, losses: Sequence[float]) -> dict[str, float]:
        """Advance to `step`, and return the rates of a member: tokens/s, seconds per step, memory in bytes, and MFU.

        The memory, and the MFU, which needs a known peak, are those of the program. The bar shows the tokens of all
        members, and the lowest and the highest of their losses.
        """
        now = time.perf_counter()
        seconds = max(now - self.clock - self.idle, 1e-9) / max(step - self.step, 1)
        values = {"tokens_per_second": self.tokens / seconds, "seconds_per_step": seconds}
        if self.peak and self.flops:
            values["mfu"] = self.flops / seconds / (self.peak.flops * self.devices)
        if memory := memory_in_use():
            values["memory_bytes"] = memory
        loss = " to ".join(f"{each:.4f}" for each in sorted({min(losses), max(losses)}))
        shown = {"loss": loss, "tok/s": f"{self.members * values['tokens_per_second']:,.0f}"}
        if "mfu" in values:
            shown["MFU"] = f"{values['mfu']:.1%}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(step - self.bar.n)
        self.step, self.clock, self.idle = step, now, 0.0
        return values

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time in this context from the training time."""
        begin = time.perf_counter()
        yield
        self.idle += time.perf_counter() - begin

    def close(self) -> None:
        """Close the progress bar, which remains on the screen."""
        self.bar.close()
