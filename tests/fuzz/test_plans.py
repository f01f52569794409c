"""Plans that were not written by `plan`, or changed since."""

import json

import pytest
from hypothesis import strategies as st

from tests.fuzz import mutations
from tests.fuzz.commands import ROOT, case, checked, holds, lanes, run

TEXT = "".join(f"the {number} words of the line that is read\n" for number in range(300))
INDEX = st.sampled_from([[], [], ["--index=0"], ["--index=1"], ["--index=-1"], ["--index=99"], ["--redo=AR"]])


@pytest.fixture(scope="module")
def lines(base):
    """Return the plan of the small table."""
    (base / "text.txt").write_text(TEXT)
    words = [f"--config.data.path={base / 'text.txt'}", f"--config.data.cache_dir={base / 'cache'}"]
    return run("plan", f"--config={ROOT}/tests/fuzz/small_table.py:debug", *words).out.splitlines()


@st.composite
def plans(draw, lines):
    """Return the content of a file of jobs with some damage."""
    jobs = [json.loads(line) for line in lines]
    chosen = draw(st.lists(st.sampled_from(jobs), min_size=1, max_size=3))
    if draw(st.integers(0, 3)):
        chosen = [draw(mutations.changed(job)) if draw(st.booleans()) else job for job in chosen]
        return "".join(json.dumps(job) + "\n" for job in chosen).encode()
    return draw(mutations.damaged("".join(json.dumps(job) + "\n" for job in chosen).encode()))


@lanes(fast=8, slow=120)
def test_jobs(count, base, lines):
    def check(given):
        verb, content, index = given
        with case(base) as place:
            (place / "jobs.jsonl").write_bytes(content)
            checked(place, verb, "--jobs=jobs.jsonl", *index)

    holds(check, st.tuples(st.sampled_from(["run", "run", "status"]), plans(lines), INDEX), count)
