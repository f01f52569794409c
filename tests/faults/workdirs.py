"""Work directories in the states that faults begin with, and what must be in them at the end."""

import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from experiments.join import difference
from experiments.results import read_result
from tests.faults.commands import Command, Ended

STATES = ("empty", "training", "trained", "done")
TABLE = Path(__file__).with_name("small_table.py")
AFTER = 2  # seconds of a whole run over those up to the middle of the training
REMEDIES = 4  # in turn, such as of two damaged files
# Losses by step, for plots alone, are read from a file of lines, which goes on after damage.
PLOTTED = "history"


@dataclass(frozen=True)
class Reference:
    """Work directories in each of `STATES`, the results of the last one, and the seconds of a whole run."""

    folder: Path
    words: list[str]
    results: dict[str, dict]
    seconds: float

    def begin(self, state: str, workdir: Path) -> list[str]:
        """Copy a state to a work directory, and return the words of the command that goes on with it."""
        shutil.copytree(self.folder / state, workdir, dirs_exist_ok=True)
        return [*self.words, f"--workdir={workdir}"]


def results(workdir: Path) -> dict[str, dict]:
    """Results of all jobs, each with what was sampled."""
    found = {}
    for file in sorted((workdir / "jobs").glob("*/result.json")):
        texts = [path.read_text() for path in sorted(file.parent.glob("samples.txt"))]
        row = {name: value for name, value in read_result(file.parent).items() if name != PLOTTED}
        found[file.parent.name] = row | {"texts": texts}
    return found


def differences(reference: dict[str, dict], workdir: Path) -> list[str]:
    """The jobs that are missing or have other results than those of the reference, each with the first difference."""
    found = results(workdir)
    wrong = [name for name in reference if name not in found]
    return wrong + [f"{name}: {what}" for name in found if (what := difference(reference[name], found[name]))]


def complete(words: list[str], folder: Path) -> tuple[Ended, list[Path]]:
    """Give a command until it is done, after each line of bad input the remedy that the line names.

    Returns the last end, and the files that were deleted because the command said so.
    """
    deleted: list[Path] = []
    for turn in range(REMEDIES + 1):
        end = Command(words, folder / f"again {turn}").ended()
        named = re.search(r"delete (\S+?)[,;:.]? ", f"{end.err} ") if end.status == 2 else None
        if not named:
            break
        file = Path(named.group(1))
        deleted.append(file)
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return end, deleted


def made(folder: Path, *options: str) -> Reference:
    """Make all states of a run with these options: before, within and after the training, and at the end."""
    text = folder / "text.txt"
    text.write_text("".join(f"the {number} words of the line that is read\n" for number in range(1200)))
    words = ["run", f"--config={TABLE}:debug", f"--config.data.path={text}", *options]
    whole = Command([*words, f"--workdir={folder / 'done'}"], folder / "logs" / "done").ended()
    assert whole.status == 0, whole.err
    # With the compiled programs, so that a command is seldom at compiling when a fault meets it.
    shutil.copytree(folder / "done" / "cache" / "compiled", folder / "empty" / "cache" / "compiled")
    shutil.copytree(folder / "done", folder / "trained", ignore=lambda place, names: leave_out(place, names))
    shutil.copytree(folder / "empty", folder / "training")
    stopped = Command([*words, f"--workdir={folder / 'training'}"], folder / "logs" / "training")
    checkpoints = folder / "training" / "jobs"
    while stopped.process.is_alive() and len(list(checkpoints.glob("train-*/checkpoints/[1-9]*"))) < 2:
        stopped.process.join(0.01)
    stopped.signal(0, signal.SIGTERM)
    end = stopped.ended()
    assert end.status == 143, end.err
    return Reference(folder, words, results(folder / "done"), AFTER * end.seconds)


def leave_out(place: str, names: list[str]) -> list[str]:
    """What is not there before the training is done: the jobs after it, and the table."""
    return [name for name in names if name == "tables" or name.startswith(("evaluate-", "sample-"))]
