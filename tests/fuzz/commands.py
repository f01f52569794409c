"""Commands of `launch.py` in this process, and what holds for every one of them, whatever it is given."""

import contextlib
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings

import launch
from experiments.run_context import open_data
from tests import command_flags

ROOT = Path(__file__).parents[2]
# The cases of a test are the same in every run.
REPEATABLE = settings(
    deadline=None, derandomize=True, database=None, print_blob=False, suppress_health_check=list(HealthCheck)
)
# What a message begins with: a field, a flag, a file, or a verb.
NAMED = re.compile(r"launch\.py: (unknown verb '|([Ff]lag )?--\w|('[^']*'|[\w./~-]([^:]|:(?=//))*): \S)")

# Lines that may stand before it: warnings, and which job a command is at.
BESIDE = re.compile(r"warning: |\[\d+/\d+\] ")


class Outcome(NamedTuple):
    """What a command ended with and wrote."""

    status: object
    out: str
    err: str


def holds(check, strategy, count: int) -> None:
    """Check a property of `count` values of a strategy."""
    settings(REPEATABLE, max_examples=count)(given(strategy)(check))()


def lanes(fast: int, slow: int):
    """Return the mark of a test with the number of its cases in the fast and in the slow lane."""
    return pytest.mark.parametrize("count", [fast, pytest.param(slow, marks=pytest.mark.slow)])


@contextlib.contextmanager
def case(folder: Path) -> Iterator[Path]:
    """Give a new folder as the working directory of a case, with a home of its own, and delete it."""
    place, before = Path(mkdtemp(dir=folder)), os.getcwd()
    os.chdir(place)
    try:
        yield place
    finally:
        os.chdir(before)
        shutil.rmtree(place)


def run(*words: str) -> Outcome:
    """Run launch.py with these words in this process."""
    open_data.cache_clear()  # data of a relative path are those of another case
    command_flags.reset()
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    argv, status, before = ["launch.py", *words], 0, sys.argv
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = lambda *parts: sys.stderr.write(warnings.formatwarning(*parts[:4]))
        sys.argv = argv  # overrides are read from there
        try:
            launch.main(launch.parse(argv))
        except SystemExit as stop:
            status = stop.code
        finally:
            sys.argv = before
    texts = []
    for stream in (out, err):
        stream.seek(0)
        texts.append(stream.read())
    return Outcome(status, *texts)


def checked(place: Path, *words: str, workdir: str = "runs") -> Outcome:
    """Run a command and check that it succeeds, or is refused in one line and leaves no trace outside of a cache."""
    before, sources = listing(place), listing(ROOT)
    outcome = run(*words, f"--workdir={workdir}")
    refused = outcome.status == 2
    assert refused or not outcome.status, outcome
    if refused:
        lines = [line for line in outcome.err.split("\n") if line and not BESIDE.match(line)]
        assert not outcome.out and len(lines) == 1, outcome
        assert NAMED.match(lines[0]), lines[0]
    # `cache` is the user's or that of the work directory.
    after = listing(place)
    allowed = ("cache", f"{workdir}/cache") if refused else ("cache", workdir)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    left = [name for name in changed if not f"{name}/".startswith(tuple(f"{each}/" for each in allowed))]
    assert not left and not [name for name in after.keys() - before.keys() if ".partial" in name], (left, outcome)
    assert listing(ROOT) == sources
    return outcome


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of all files below a folder but those that Python and Git keep, by name."""
    found = {}
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__" and each[0] != "."]
        for name in files:
            status = os.lstat(os.path.join(root, name))
            found[os.path.relpath(os.path.join(root, name), folder)] = (status.st_size, status.st_mtime_ns)
    return found
