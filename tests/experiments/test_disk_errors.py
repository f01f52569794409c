"""An error of a disk is one line, whichever thread meets it."""

import errno
import sys
import threading
from types import SimpleNamespace

import pytest
from absl import logging

from experiments import disk_errors, run
from tests.experiments.conftest import one_line

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def hidden(monkeypatch):
    """Hide full disks until the end of the test; the list of what other threads and destructors say."""
    said = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    handler = logging.get_absl_handler()
    before = list(handler.filters)
    disk_errors.hide_from_threads()
    yield said
    handler.filters[:] = before


def wrapped(error):
    try:
        try:
            raise error
        except OSError as cause:
            raise RuntimeError("a checkpoint was not written") from cause
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(("error", "full"), [(FULL, True), (wrapped(FULL), True), (wrapped(OSError("gone")), False)])
def test_the_cause_of_an_error_says_that_a_disk_is_full(error, full):
    assert disk_errors.says_full(error) == full


@pytest.fixture
def failing(cli, monkeypatch):
    """Return a function that gives a command which meets an error."""

    def fail(error):
        def raised(*given, **options):
            raise wrapped(error)

        monkeypatch.setattr(run, "run_table", raised)
        return cli("run", "--config=configs/quickstart.py:debug")

    return fail


def test_a_full_disk_is_one_line_with_what_to_do(failing):
    one_line(failing(FULL), "the disk of '", "/runs' is full", "goes on from what")


def test_a_file_that_is_not_read_is_one_line_and_status_1(failing):
    status, out, err = failing(OSError(errno.EIO, "Input/output error", "/runs/file"))
    assert (status, out) == (1, "")
    assert err == (
        "launch.py: /runs/file: Input/output error; allow it or see to the disk, and give the command again\n"
    )


@pytest.mark.parametrize("hook", ["excepthook", "unraisablehook"])
def test_other_threads_and_destructors_are_silent_about_it_alone(hidden, hook):
    say = getattr(threading if hook == "excepthook" else sys, hook)
    errors = (wrapped(error) for error in (FULL, OSError("gone")))
    full, other = (SimpleNamespace(exc_value=error, object=None) for error in errors)
    say(full)
    assert not hidden
    say(other)
    assert hidden == [other]


def test_a_coroutine_that_a_failed_read_leaves_is_not_shown(hidden):
    async def read():
        """Read nothing."""

    coroutine = read()
    sys.unraisablehook(SimpleNamespace(exc_value=Exception("not read"), object=coroutine))
    coroutine.close()
    assert not hidden


@pytest.mark.parametrize(("text", "shown"), [("No space left on device", False), ("another problem", True)])
def test_log_records_of_it_are_omitted(hidden, text, shown):
    handler = logging.get_absl_handler()
    record = logging.get_absl_logger().makeRecord("absl", 40, "file", 1, text, (), None)
    assert bool(handler.filter(record)) == shown
