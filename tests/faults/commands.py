"""Commands of launch.py in processes of their own, forked from one that has imported everything."""

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.preloaded"])
LEAST = "jax_persistent_cache_min_compile_time_secs"
FLAGS = "--xla_backend_optimization_level=0"
LIMIT = 240.0  # seconds after which a command is hanging


class Ended(NamedTuple):
    """What a command leaves: its exit status (negative for a signal), what it printed, and how long it took."""

    status: int
    out: str
    err: str
    seconds: float


def run(words: list[str], streams: tuple[Path, Path], prepare: Callable[[], None] | None) -> None:
    """Run a command of launch.py in this process; `prepare` injects a fault before."""
    for stream, number in zip(streams, (1, 2), strict=True):
        file = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.chdir(ROOT)
    os.environ["XLA_FLAGS"] = FLAGS
    sys.argv = ["launch.py", *words]
    import jax
    from absl import app

    import launch
    from experiments import disk_errors

    update = jax.config.update
    update("jax_persistent_cache_enable_xla_caches", "none")  # their path would be in the keys of all programs
    # All programs are kept, also those that compile fast: there are many of them.
    jax.config.update = lambda name, value: update(name, 0.0 if name == LEAST else value)
    disk_errors.hide_from_threads()
    if prepare:
        prepare()
    app.run(launch.main, flags_parser=launch.parse)


class Command:
    """A running command, whose output goes to files in a folder."""

    def __init__(self, words: list[str], folder: Path, prepare: Callable[[], None] | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.streams = folder / "out", folder / "err"
        self.begun = time.monotonic()
        self.process = CONTEXT.Process(target=run, args=(words, self.streams, prepare))
        self.process.start()

    def signal(self, after: float, number: int) -> None:
        """Send a signal, unless the command ends before."""
        self.process.join(after)
        with contextlib.suppress(ProcessLookupError):
            if self.process.exitcode is None and self.process.pid:
                os.kill(self.process.pid, number)

    def ended(self) -> Ended:
        """Wait for the end of the command.

        Raises:
          TimeoutError: if it hangs.
        """
        self.process.join(LIMIT)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"the command hangs: {self.streams[1].read_text()}")
        out, err = (stream.read_text() if stream.exists() else "" for stream in self.streams)
        return Ended(self.process.exitcode, out, err, time.monotonic() - self.begun)
