"""The progress bar of training, and the rates that it shows."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
from tqdm import tqdm

from diffusion.train.hardware import memory_in_use, peak


class Meter:
    """The progress bar, with throughput, utilization and remaining time; the time of evaluations is excluded."""

    def __init__(self, name: str, start: int, steps: int, tokens: int, flops: Callable[[], float] | None, show: bool):
        self.tokens = tokens
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
        self.flops = flops() if flops and self.peak else 0.0
        self.devices = jax.device_count()

    def update(self, step: int, loss: float) -> dict[str, float]:
        """Advance to `step`, and return tokens/s, seconds per step, memory in bytes, and MFU if the peak is known."""
        now = time.perf_counter()
        seconds = max(now - self.clock - self.idle, 1e-9) / max(step - self.step, 1)
        values = {"tokens_per_second": self.tokens / seconds, "seconds_per_step": seconds}
        if self.peak and self.flops:
            values["mfu"] = self.flops / seconds / (self.peak.flops * self.devices)
        if memory := memory_in_use():
            values["memory_bytes"] = memory
        shown = {"loss": f"{loss:.4f}", "tok/s": f"{values['tokens_per_second']:,.0f}"}
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
