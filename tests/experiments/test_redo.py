"""`run --redo=ROW`: jobs again, with those that need them, while the old results are kept."""

import json

import pytest

from diffusion.storage import atomic_write
from experiments import redo, run
from experiments.plan import plan
from tests.checks import refused
from tests.small_configs import CAUSAL, judged_config

ROWS = [
    dict(name="AR", overrides=CAUSAL, verbs=("evaluate",)),
    dict(name="MDLM, 4", overrides={"sample.steps": 4}, verbs=("evaluate", "sample")),
    dict(name="MDLM, 8", overrides={"sample.steps": 8}, verbs=("sample",)),
    dict(name="SCMDM", overrides={"start": "MDLM, 4", "memory.adapter": "linear"}, verbs=("sample",)),
]


@pytest.fixture
def jobs():
    return plan(ROWS, judged_config())


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        (["MDLM, 8"], ["sample MDLM, 8"]),
        (["SCMDM", "MDLM, 8"], ["train SCMDM", "sample MDLM, 8", "sample SCMDM"]),
        (["AR"], ["train AR", "evaluate AR", "sample MDLM, 4", "sample MDLM, 8", "sample SCMDM"]),
        (
            ["MDLM, 4"],
            ["train MDLM, 4", "train SCMDM", "evaluate MDLM, 4", "sample MDLM, 4", "sample MDLM, 8", "sample SCMDM"],
        ),
    ],
)
def test_jobs_of_rows_and_all_that_need_them(rows, expected, jobs):
    assert [f"{job.verb} {job.row}" for job in redo.select(jobs, rows)] == expected


def test_unknown_row_is_answered_with_the_known_ones(jobs):
    with refused(r"--redo: .* 'GPT'; known: 'AR', 'MDLM, 4', 'SCMDM', 'MDLM, 8'"):
        redo.select(jobs, ["AR", "GPT"])


@pytest.fixture
def recorded(monkeypatch, tmp_path):
    """Return (ids of the jobs that ran, id of a job that fails), with runs that only count themselves."""
    ran, failing = [], []

    def execute(job):
        if job.id in failing:
            raise RuntimeError("stopped")
        ran.append(job.id)
        row = {"job": job.id, "metrics": {"run": ran.count(job.id)}}
        atomic_write(job.folder(tmp_path) / "result.json", json.dumps(row))
        return [row]

    monkeypatch.setattr(run, "prepare", lambda job, workdir, profile: job)
    monkeypatch.setattr(run, "check_tokenizers", lambda each, runs: None)
    monkeypatch.setattr(run, "check_plan", lambda jobs, among: None)
    monkeypatch.setattr(run, "execute", execute)
    return ran, failing


def test_old_results_are_kept_and_named(jobs, recorded, tmp_path, capsys):
    ran, _ = recorded
    run.run_jobs(jobs, tmp_path)
    assert ran == [job.id for job in jobs]
    ran.clear()
    rows = run.run_jobs(jobs, tmp_path, ["SCMDM"])
    chosen = redo.select(jobs, ["SCMDM"])
    assert ran == [job.id for job in chosen] and len(rows) == len(jobs)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("redo: ")]
    for job, line in zip(chosen, lines, strict=True):
        aside = tmp_path / "redone" / f"{job.id}.1"
        assert line == f"redo: {job.verb} 'SCMDM', seed 0; the old one is in {aside}"
        assert json.loads((aside / "result.json").read_text())["job"] == job.id and job.done(tmp_path)
    run.run_jobs(jobs, tmp_path, ["SCMDM"])
    assert (tmp_path / "redone" / f"{chosen[0].id}.2" / "result.json").exists(), "older ones are not replaced"


@pytest.mark.parametrize("again", [["SCMDM"], []], ids=["same command", "without the flag"])
def test_an_interrupted_redo_goes_on(again, jobs, recorded, tmp_path, capsys):
    ran, failing = recorded
    run.run_jobs(jobs, tmp_path)
    chosen = redo.select(jobs, ["SCMDM"])
    failing.append(chosen[-1].id)
    with pytest.raises(RuntimeError):
        run.run_jobs(jobs, tmp_path, ["SCMDM"])
    failing.clear()
    ran.clear()
    run.run_jobs(jobs, tmp_path, again)
    assert ran == [chosen[-1].id], "what was done again is not done a third time"
    assert len(list((tmp_path / "redone").iterdir())) == len(chosen)
    assert not again or "redo: goes on, 1 of 2 jobs are left" in capsys.readouterr().err


def test_nothing_is_moved_where_a_config_is_wrong(jobs, recorded, tmp_path, monkeypatch):
    run.run_jobs(jobs, tmp_path)

    def refuse(jobs, among):
        raise ValueError("wrong")

    monkeypatch.setattr(run, "check_plan", refuse)
    with pytest.raises(ValueError, match="wrong"):
        run.run_jobs(jobs, tmp_path, ["AR"])
    assert all(job.done(tmp_path) for job in jobs) and not (tmp_path / "redone").exists()


def test_a_result_of_another_commit_names_the_remedy(jobs, tmp_path, capsys):
    job = next(job for job in jobs if job.row == "MDLM, 8")
    atomic_write(job.folder(tmp_path) / "result.json", json.dumps({"commit": "0123456789ab"}))
    run.run_jobs([job], tmp_path)
    err = capsys.readouterr().err
    assert "at commit 0123456789ab, not " in err and "`run --redo='MDLM, 8'` does it again" in err
