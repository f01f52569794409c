"""Work directories whose files were damaged, edited or replaced."""

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from experiments.layout import LAYOUT
from experiments.plan import Job
from tests.fuzz import mutations
from tests.fuzz.commands import ROOT, case, checked, holds, lanes, run
from tests.job_folders import begin, finish

TEXT = "".join(f"the {number} words of the line that is read\n" for number in range(300))
TABLE = f"--config={ROOT}/tests/fuzz/small_table.py:debug"
COMMANDS = [["status"], ["status", TABLE], ["report"], ["report", TABLE], ["table", TABLE], ["run", TABLE]]
COMMANDS += [["train", TABLE, "--row=AR"], ["evaluate", TABLE, "--row=AR"], ["sample", TABLE, "--row=MDLM, 4 steps"]]
COMMANDS += [["plan", "--migrate=runs"], ["table", TABLE, "--join=runs"], ["run", TABLE, "--redo=AR"]]


@pytest.fixture(scope="module")
def jobs(base):
    """Return the jobs of the small table, and the words of its data."""
    (base / "text.txt").write_text(TEXT)
    words = [f"--config.data.path={base / 'text.txt'}", f"--config.data.cache_dir={base / 'cache'}"]
    return [Job(**json.loads(line)) for line in run("plan", TABLE, *words).out.splitlines()], words


def written(place: Path, jobs: list[Job]) -> list[Path]:
    """Write a work directory with jobs that are done, running and failed, and return its files."""
    workdir = place / "runs"
    for number, job in enumerate(jobs):
        (finish if number % 4 < 3 else begin)(job, workdir)
        (job.folder(workdir) / "job.json").write_text(
            json.dumps({"row": job.row, "command": "launch.py run", "time": 1.0})
        )
        (job.folder(workdir) / "trained_with.json").write_text('{"name": "bytes", "fingerprint": "x", "arguments": {}}')
    (jobs[-1].folder(workdir) / "failed.json").write_text('{"error": "broken", "host": "here", "time": 1.0}')
    (workdir / "README.md").write_text(LAYOUT)
    table = workdir / "tables" / "small.debug"
    table.mkdir(parents=True)
    (table / "table.md").write_text("# A table\n\n| a |\n|---|\n| 1 |\n\n![x](x.png)\n")
    (table / "rows.jsonl").write_text("{}\n")
    return sorted(path for path in workdir.rglob("*") if path.is_file())


@lanes(fast=3, slow=100)
def test_files(count, base, jobs):
    planned, words = jobs

    def check(data):
        with case(base) as place:
            files = written(place, planned)
            for file in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=2, unique=True)):
                replaced(data, place, file)
            command = data.draw(st.sampled_from(COMMANDS))
            checked(place, *command, *(words if TABLE in command else []))

    holds(check, st.data(), count)


def replaced(data, place: Path, file: Path) -> None:
    """Damage a file, or put a folder or a link in its place."""
    content = file.read_bytes()
    how = data.draw(st.integers(0, 9))
    if how < 5 and file.suffix == ".json":
        file.write_text(json.dumps(data.draw(mutations.changed(json.loads(content)))))
    elif how < 8:
        file.write_bytes(data.draw(mutations.damaged(content)))
    else:
        file.unlink()
        if how == 8:
            data.draw(st.sampled_from([file.mkdir, lambda: None]))()
        else:
            file.symlink_to(data.draw(st.sampled_from([file, place / "none", place])))
