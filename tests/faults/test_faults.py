"""After a fault the same command ends with the same results, or with one line whose remedy leads to them.

A fault kills a command at any time, damages a file of its work directory, fills its disk, fails one of its reads, or
makes a loss that is no number. Two commands at once share the work.
"""

import re

import pytest

from tests.faults.commands import Command
from tests.faults.kinds import KILLS, TARGETS, Fault, damaged, faults, injected, mounted, unmounted
from tests.faults.workdirs import complete, differences, made

FAST = [
    Fault("kill", 0),
    Fault("terminate", 0),
    Fault("truncate checkpoint", 0),
    Fault("flip weights", 0),
    Fault("zero packed", 0),
    Fault("flip result", 0),
    Fault("delete record", 0),
    Fault("read", 0),
    Fault("nan", 0),
    Fault("twice", 0),
]
NUMBERS = {"kill": 30, "terminate": 16, "damage": 4, "full": 8, "read": 16, "nan": 4, "twice": 4}
SLOW = [fault for fault in faults(NUMBERS) if fault not in FAST]
POPULATION = [*faults({"kill": 12, "terminate": 6, "truncate checkpoint": 3, "flip checkpoint": 3})]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the work directories that faults begin with."""
    return made(tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    """Return the work directories of three trainings that are one program."""
    return made(tmp_path_factory.mktemp("population"), "--config.seeds=(0, 1, 2)", "--population=3")


def is_one_line(text):
    """Whether bad input or a failure is said in one line, after what a run says of its jobs."""
    said = [line for line in text.splitlines() if line.startswith("launch.py: ")]
    return len(said) == 1 and "Traceback" not in text


def meet(fault, reference, tmp_path):
    """Begin a command that meets a fault; returns the words of the command, and whether the fault can be made here."""
    workdir, draw = tmp_path / "runs", fault.random
    how, _, target = fault.kind.partition(" ")
    if fault.kind in KILLS:
        words = reference.begin("empty", workdir)
        command = Command(words, tmp_path / "fault")
        command.signal(draw.uniform(0, reference.seconds), KILLS[fault.kind])
        end = command.ended()
        assert end.status in {"kill": (-9, 0), "terminate": (-15, 143, 0)}[how], end.err
        assert "Traceback" not in end.err, end.err
    elif target in TARGETS:
        words = reference.begin(TARGETS[target][0], workdir)
        damaged(fault, workdir)
    elif fault.kind == "full":
        used = sum(path.stat().st_size for path in (reference.folder / "empty").rglob("*") if path.is_file())
        if not mounted(workdir, used + 300_000 + draw.randrange(1_500_000)):
            pytest.skip("a disk of its own needs the right to mount one")
        words = reference.begin("empty", workdir)
        end = Command(words, tmp_path / "fault").ended()
        assert end.status == 0 or (end.status == 2 and is_one_line(end.err) and "is full" in end.err), end.err
        mounted(workdir, 2**28)
    elif fault.kind == "twice":
        words = reference.begin("empty", workdir)
        first = Command(words, tmp_path / "fault")
        first.process.join(draw.uniform(0, reference.seconds))
        second = Command(words, tmp_path / "second").ended()
        assert (first.ended().status, second.status) == (0, 0), second.err
    else:
        words = reference.begin("empty", workdir)
        end = Command(words, tmp_path / "fault", injected(fault, workdir)).ended()
        expected = {"read": (0, 1, 2), "nan": (1,)}[fault.kind]
        assert end.status in expected and (end.status == 0 or is_one_line(end.err)), end.err
    return words


def check(fault, reference, tmp_path):
    """Meet a fault, give the command again, and follow the remedies that it names, until it is done."""
    workdir = tmp_path / "runs"
    try:
        words = meet(fault, reference, tmp_path)
        end, deleted = complete(words, tmp_path)
        assert end.status == 0, f"after deleting {deleted}: {end.err}"
        assert not differences(reference.results, workdir)
        assert "Traceback" not in end.err, end.err
        assert re.search(r"^\| MDLM, 4 steps ", next(workdir.glob("tables/*/table.md")).read_text(), re.M)
    finally:
        if workdir.is_mount():
            unmounted(workdir)


@pytest.mark.parametrize("fault", FAST, ids=str)
def test_a_fault_changes_no_result(fault, reference, tmp_path):
    check(fault, reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", SLOW, ids=str)
def test_faults_at_random_times_and_places_change_no_result(fault, reference, tmp_path):
    check(fault, reference, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("fault", POPULATION, ids=str)
def test_faults_change_no_result_of_trainings_that_are_one_program(fault, population, tmp_path):
    check(fault, population, tmp_path)
