"""One of two processes is killed: the other one ends by itself, and both go on to the same results."""

import signal

import pytest

from experiments.pods.local import free_port
from tests.faults.commands import Command
from tests.faults.kinds import Fault
from tests.faults.workdirs import differences, made, results

LOST = [Fault(f"kill process {index}", seed) for index in range(2) for seed in range(3)]


def pair(words, folder):
    """Start both processes of a run."""
    words = [*words, f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    return [Command([*words, f"--process={index}"], folder / str(index)) for index in range(2)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the work directories that faults begin with, and the results and seconds of two processes."""
    reference, folder = made(tmp_path_factory.mktemp("reference")), tmp_path_factory.mktemp("pair")
    both = [command.ended() for command in pair(reference.begin("empty", folder / "runs"), folder / "first")]
    assert [each.status for each in both] == [0, 0], both
    both = [command.ended() for command in pair(reference.begin("empty", folder / "again"), folder / "second")]
    return reference, results(folder / "runs"), both[0].seconds


@pytest.mark.slow
@pytest.mark.parametrize("fault", LOST, ids=str)
def test_the_other_process_ends_and_both_go_on(fault, reference, tmp_path):
    reference, whole, seconds = reference
    words = reference.begin("empty", tmp_path / "runs")
    commands, lost = pair(words, tmp_path / "fault"), int(fault.kind[-1])
    commands[lost].signal(fault.random.uniform(0, seconds), signal.SIGKILL)
    ends = [command.ended() for command in commands]
    if ends[lost].status == -signal.SIGKILL and ends[1 - lost].status:
        # JAX itself aborts the others where the first process is lost, or none has come yet.
        said = ends[1 - lost].err
        assert "launch.py: another process has ended" in said or ends[1 - lost].status == -signal.SIGABRT, said
    again = [command.ended() for command in pair(words, tmp_path / "again")]
    assert [end.status for end in again] == [0, 0], again
    assert not differences(whole, tmp_path / "runs")
