"""The verb `status`: what every job of a work directory is at, once or again and again."""

import shutil
import sys
import time
from collections import Counter
from pathlib import Path

from diffusion.report.tables import terminal
from experiments.layout import check_layout
from experiments.plan import Job
from experiments.states import STATES, State, amount, several_tables, states, stored, table_of

SECONDS = 3  # between two views
CLEAR = "\033[H\033[2J"


def run(jobs: list[Job] | None, workdir: Path, watch: bool) -> None:
    """Print the states of jobs, or of all jobs in the work directory; `watch` repeats this until all are done.

    Raises:
      ValueError: for a work directory that does not exist or is of an earlier version, or `watch` outside a terminal.
    """
    if not workdir.is_dir():
        raise ValueError(f"--workdir: {workdir} does not exist; pass the folder that `launch.py run` writes to")
    if watch and not sys.stdout.isatty():
        raise ValueError("--watch: standard output is not a terminal; leave it out")
    check_layout(workdir)
    while True:
        found = states(stored(workdir) if jobs is None else jobs, workdir)
        if not watch:
            print(text(found))
            return
        print(CLEAR + fitted(found, *shutil.get_terminal_size()), flush=True)
        if all(each.name == "done" for each in found):
            return
        try:
            time.sleep(SECONDS)
        except KeyboardInterrupt:
            return


def totals(found: list[State]) -> str:
    """How many jobs there are in each state."""
    counts = Counter(each.name for each in found)
    return ", ".join([amount(len(found), "job"), *(f"{counts[name]} {name}" for name in STATES if counts[name])])


def text(found: list[State]) -> str:
    """A line for each job, and the totals."""
    if not found:
        return "no jobs yet"
    named = several_tables(found)
    headings = ["state", "verb", *(["table"] if named else []), "row", "seed", ""]
    lines = [
        [each.name, job.verb, *([table_of(job)] if named else []), job.row or job.id, job.seed, each.detail]
        for each in found
        for job in (each.job,)
    ]
    return f"{terminal(headings, lines)}\n\n{totals(found)}"


def fitted(found: list[State], width: int, height: int) -> str:
    """The text in a terminal of this size: where it is too long, running and failed jobs are those that are shown."""
    room = height - 6  # headings, totals, and the line that says how many are left out
    urgent = ("running", "failed", "stopped", "waiting", "done")
    shown = sorted(found, key=lambda each: urgent.index(each.name))[:room] if len(found) > room else found
    chosen = {each.job.id for each in shown}
    lines = text([each for each in found if each.job.id in chosen]).splitlines()
    if left := len(found) - len(shown):
        lines[-2:] = [f"and {left} more", "", totals(found)]
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in lines)
