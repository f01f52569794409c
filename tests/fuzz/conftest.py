"""Where a valid command of the fuzz ends: at the first computation, or at the first process that it would start."""

import os

import jax
import pytest

from experiments import checks, run, trace
from experiments import compile as ahead_of_time
from experiments.benchmarks import allocator
from experiments.convert import folder as converted
from experiments.geneval import command as geneval

checked = checks.check_plan


def end(*arguments, **options):
    """End a command that would compute, or start processes."""
    raise SystemExit(0)


def save(folder, params):
    """Write what says that weights are there, in place of the weights."""
    folder.mkdir(parents=True)
    (folder / "_METADATA").write_text("{}")


def check_few(jobs, among=None, most=2):
    """Check a few jobs of a plan, because networks are traced."""
    checked(jobs[:: -(-len(jobs) // most) or 1], among or jobs)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_computed():
    """Replace what computes, what waits for other processes, and settings that later tests need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "check_plan", check_few)
        patch.setattr(run, "execute", end)
        patch.setattr(trace, "write", end)
        patch.setattr(geneval, "load_detector", end)
        patch.setattr(ahead_of_time, "programs_of", end)
        patch.setattr(converted, "save_weights", save)
        patch.setattr(jax.distributed, "initialize", end)
        patch.setattr(os, "execvp", end)
        patch.setattr(jax.config, "update", lambda *setting: None)
        patch.setattr(allocator, "keep_freed_memory", lambda: True)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a folder for the cases of a module, with the home and the cache of the user."""
    folder = tmp_path_factory.mktemp("cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield folder
