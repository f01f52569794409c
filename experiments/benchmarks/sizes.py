"""Sizes of the networks that benchmarks run, and the processor that they run on."""

import platform
from pathlib import Path

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
