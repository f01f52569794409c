"""States of jobs, what a failed job leaves, and the verb `status`."""

import io
import json
import sys
import time

import pytest

from diffusion.storage import atomic_write
from experiments import locks, records, run, states, status
from experiments.plan import Job
from experiments.states import duration
from tests.checks import refused
from tests.experiments.conftest import one_line
from tests.job_folders import begin, finish, small_table


@pytest.fixture
def table(tmp_path):
    """Return the jobs of a table of which one training is done, and their work directory."""
    jobs = small_table(seeds=(0,))[1]
    finish(jobs[0], tmp_path)
    return jobs, tmp_path


def named(found):
    """Return (state, detail) by verb and row."""
    return {(each.job.verb, each.job.row): (each.name, each.detail) for each in found}


def test_every_state_has_its_reason(table):
    jobs, workdir = table
    training = jobs[1]
    begin(training, workdir)
    record = {"step": 20, "loss": 2.5, "seconds_per_step": 0.5, "tokens_per_second": 1000.0}
    with (training.folder(workdir) / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
    total = training.config["train"]["steps"] = 140
    with locks.held(training, workdir):
        found = named(states.states(jobs, workdir))
    assert found["train", "AR"] == ("done", "in 1 min 15 s, validation loss 3.2500")
    name, detail = found["train", "MDLM, 4"]
    assert name == "running"
    assert detail.startswith(f"step 20 of {total}, 0.5 s/step, 1,000 tokens/s, 1 min left, loss 2.5000, recorded ")
    assert found["evaluate", "AR"] == ("waiting", "ready to run")
    assert found["sample", "MDLM, 4"] == ("waiting", "for train 'MDLM, 4', seed 0 (running)")
    assert named(states.states(jobs, workdir))["train", "MDLM, 4"] == (
        "stopped",
        "interrupted at step 20 of 140; `run` goes on with it",
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("data.path: is empty; pass one\nmore"), "data.path: is empty; pass one"),
        (RuntimeError("RESOURCE_EXHAUSTED: out of memory"), "RuntimeError: RESOURCE_EXHAUSTED: out of memory"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_failed_job_keeps_its_reason_until_it_runs_again(error, reason, tmp_path):
    job = Job("train-x-1", "train", "AR", 0, {}, {"seed": 0})
    begin(job, tmp_path)
    with pytest.raises(type(error)), records.kept(job, job.folder(tmp_path)):
        raise error
    stored = json.loads((job.folder(tmp_path) / "failed.json").read_text())
    assert stored["error"] == reason and stored["host"] and abs(stored["time"] - time.time()) < 60
    (state,) = states.states([job], tmp_path)
    assert state.name == "failed" and state.detail.startswith(f"{reason} (on {stored['host']}, ")
    with records.kept(job, job.folder(tmp_path)):
        assert not (job.folder(tmp_path) / "failed.json").exists()
    started = json.loads((job.folder(tmp_path) / "job.json").read_text())
    assert (started["verb"], started["row"], started["seed"]) == ("train", "AR", 0) and started["command"]
    with pytest.raises(SystemExit), records.kept(job, job.folder(tmp_path)):
        raise SystemExit(143)
    assert not (job.folder(tmp_path) / "failed.json").exists(), "a signal is no failure"


def test_an_error_reaches_the_user_where_its_reason_cannot_be_written(tmp_path, monkeypatch):
    job = Job("train-x-1", "train", "AR", 0, {}, {})
    write = records.atomic_write

    def full(path, text):
        if path.name == "failed.json":
            raise OSError("no space left")
        write(path, text)

    monkeypatch.setattr(records, "atomic_write", full)
    with refused("the reason"), records.kept(job, tmp_path):
        raise ValueError("the reason")


def test_a_run_that_diverges_leaves_its_reason(cli, succeed, tmp_path, fields):
    words = ("--config=configs/quickstart.py:debug", "--row=MDLM", *(f"--config.{k}={v}" for k, v in fields.items()))
    state, _, err = cli("train", *words, "--config.optimizer.learning_rate=1e38", "--config.optimizer.warmup=0")
    assert state == 1 and "diverged" in err
    (file,) = (tmp_path / "runs" / "jobs").glob("*/failed.json")
    assert json.loads(file.read_text())["error"].startswith("training diverged at step ")
    out, _ = succeed("status")
    assert "failed" in out and "training diverged at step" in out and "1 job, 1 failed" in out


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("job.json", "[1]"),
        ("job.json", '{"row": 1, "seed": "x", "time": "x"}'),
        ("job.json", "[" * 100_000),
        ("config.json", "[1]"),
        ("config.json", '{"train": 1, "table": []}'),
        ("failed.json", '{"error": "broken", "time": "x"}'),
        ("metrics.jsonl", '7\n{"step": "x"}\n{"step": 1, "loss": "x"}\n' + "9" * 5000),
        ("metrics.jsonl", b"\xff\n"),
    ],
)
def test_damaged_files_of_jobs_hide_no_state(name, content, table):
    jobs, workdir = table
    begin(jobs[1], workdir)
    content = content if isinstance(content, bytes) else content.encode()
    (jobs[1].folder(workdir) / name).write_bytes(content)
    found = states.states(jobs, workdir)
    assert found[0].name == "done" and found[1].name in ("stopped", "failed")
    assert status.text(states.states(states.stored(workdir), workdir))


def test_jobs_of_folders_are_named_by_what_they_say(table):
    jobs, workdir = table
    begin(jobs[1], workdir)
    (workdir / "jobs" / "notes").mkdir()
    begun, done = states.stored(workdir)
    assert (done.id, done.verb, done.row, done.seed) == (jobs[0].id, "train", "AR", 0)
    assert (begun.id, begun.verb, begun.row) == (jobs[1].id, "train", "")
    assert jobs[1].id in status.text(states.states([done, begun], workdir))


def test_the_verb_reads_jobs_of_a_config_a_plan_or_the_folder(cli, succeed, tmp_path):
    one_line(cli("status"), "--workdir: ", "does not exist")
    (tmp_path / "runs").mkdir()
    assert succeed("status")[0].strip() == "no jobs yet"
    debug = "--config=configs/quickstart.py:debug"
    planned, _ = succeed("plan", debug)
    (tmp_path / "jobs.jsonl").write_text(planned)
    by_config, by_plan = succeed("status", debug)[0], succeed("status", f"--jobs={tmp_path / 'jobs.jsonl'}")[0]
    assert by_config == by_plan and f"{len(planned.splitlines())} jobs, {len(planned.splitlines())} waiting" in by_plan
    one_line(cli("status", debug, "--watch"), "--watch: standard output is not a terminal")
    one_line(cli("run", debug, "--watch"), "--watch: ", "goes with status, not with run")
    one_line(cli("run", debug, "--join=x"), "--join: ", "goes with table, not with run")
    assert list((tmp_path / "runs").iterdir()) == [], "looking writes nothing"


def test_watching_ends_when_all_are_done(table, monkeypatch):
    jobs, workdir = table
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", terminal)

    def work(seconds):
        finish(next(job for job in jobs if not job.done(workdir)), workdir)

    monkeypatch.setattr(status.time, "sleep", work)
    status.run(jobs, workdir, watch=True)
    views = terminal.getvalue().split(status.CLEAR)[1:]
    assert len(views) == len(jobs) and f"{len(jobs)} jobs, {len(jobs)} done" in views[-1]
    assert f"{len(jobs)} jobs, 1 done, {len(jobs) - 1} waiting" in views[0]


def test_a_small_terminal_shows_what_is_urgent(table):
    jobs, workdir = table
    with locks.held(jobs[1], workdir):
        found = states.states(jobs, workdir)
    lines = status.fitted(found, 40, 8).splitlines()
    assert max(map(len, lines)) <= 40 and len(lines) <= 8
    assert any(line.startswith("running") for line in lines) and f"and {len(jobs) - 2} more" in lines
    assert not any(line.startswith("done") for line in lines)
    assert status.fitted(found, 200, 50) == status.text(found)


def test_a_job_whose_need_is_missing_has_not_failed(tmp_path):
    job = Job("sample-y-2", "sample", "AR", 0, {"weights": "train-x-1"}, {})
    with refused("sample-y-2 needs train-x-1"):
        run.check_needs(job, tmp_path)
    (state,) = states.states([job], tmp_path)
    assert (state.name, state.detail) == ("waiting", "for train-x-1")


def test_records_that_cannot_be_read_are_empty(tmp_path):
    atomic_write(tmp_path / "job.json", "{")
    assert records.read(tmp_path / "job.json") == records.read(tmp_path / "none.json") == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (60, "1 min"), (192, "3 min 12 s"), (7500, "2 h 5 min"), (273600, "3 d 4 h")],
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text
