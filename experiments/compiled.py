"""How many programs were compiled, and how many were read from JAX's persistent cache of compiled programs.

A hyper-parameter that is an argument of a program, such as the learning rate in the state of the optimizer, changes no
program: of the jobs of a sweep over it the first one compiles, and the others read what it compiled.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from jax import monitoring

COMPILED = "/jax/core/compile/backend_compile_duration"  # also of programs that are read
READ = "/jax/compilation_cache/cache_hits"
LONG = 1.0  # seconds of compilation from which `launch.py` keeps programs in the cache


@dataclass
class Programs:
    """Names of programs with how often they were compiled, read, or compiled in less than `LONG` seconds."""

    compiled: Counter = field(default_factory=Counter)
    read: Counter = field(default_factory=Counter)
    small: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        """The counts, as one line."""
        parts = {"compiled": self.compiled, "read from the cache": self.read}
        texts = [f"{found.total()} {verb}" + (f" ({listed(found)})" if found else "") for verb, found in parts.items()]
        return f"programs: {', '.join(texts)}, {self.small.total()} small ones compiled in under {LONG:g} s each"


def listed(found: Counter) -> str:
    """The names with their counts."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


@contextmanager
def counted(long: float = LONG) -> Iterator[Programs]:
    """Count the programs of this context; a compilation of less than `long` seconds counts as small."""
    programs, hits = Programs(), []

    def note(event: str, **_) -> None:
        if event == READ:
            hits.append(event)

    def count(event: str, duration_secs: float, **details: str | int) -> None:
        if event != COMPILED:
            return
        name = str(details.get("fun_name", "")).removeprefix("jit(").removesuffix(")")
        # A program that is read says so before its time is recorded.
        kind = programs.read if hits else programs.compiled if duration_secs >= long else programs.small
        kind[name] += 1
        hits.clear()

    monitoring.register_event_listener(note)
    monitoring.register_event_duration_secs_listener(count)
    try:
        yield programs
    finally:
        monitoring.unregister_event_listener(note)
        monitoring.unregister_event_duration_listener(count)
