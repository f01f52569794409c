"""What benchmarks share: sizes of networks, the processor and its cores, and timings taken in turns."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import app

Name = TypeVar("Name", bound=Hashable)
SHAPES = {
    "debug": dict(hidden=32, blocks=2, heads=2, vocab_size=66, length=16, batch=4),
    "local": dict(hidden=128, blocks=4, heads=4, vocab_size=1026, length=128, batch=32),
    "large_vocabulary": dict(hidden=128, blocks=4, heads=4, vocab_size=50258, length=128, batch=8),
    "wide": dict(hidden=256, blocks=8, heads=8, vocab_size=1026, length=128, batch=16),
    "small": dict(hidden=768, blocks=12, heads=12, vocab_size=50258, length=1024, batch=32),
}


def processor() -> str:
    """The model of the processor, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def pin(cores: int) -> str:
    """Pin the process to so many of its cores, or to none where it is 0; what it may use then, such as "2 cores"."""
    available = sorted(os.sched_getaffinity(0))
    if cores > len(available):
        raise app.UsageError(f"--cores: this process may use {len(available)}")
    if cores:
        os.sched_setaffinity(0, available[:cores])
    count = cores or len(available)
    return f"{count} core{'s' * (count > 1)}"


def timed(tasks: dict[Name, Callable[[], Any]], repeats: int) -> dict[Name, list[float]]:
    """Seconds of tasks that return arrays, in turns, so that slow periods of the machine affect all of them."""
    import jax

    seconds = {name: [] for name in tasks}
    for repeat in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            jax.block_until_ready(task())
            if repeat:  # the first repeat compiles, and warms up caches and allocators
                seconds[name].append(time.perf_counter() - start)
    return seconds


def with_range(values: Sequence[float], digits: int = 2) -> str:
    """Median, minimum and maximum, such as "1.05 [0.98, 1.20]"."""
    middle, low, high = (f"{each:.{digits}f}" for each in (statistics.median(values), min(values), max(values)))
    return f"{middle} [{low}, {high}]"


def paired(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """Ratios of two programs' seconds, paired by repeat, `with_range`."""
    return with_range([above / below for above, below in zip(numerators, denominators, strict=True)])
