"""Files of plans, jobs that are done or cannot run, and rows without a network."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from configs import lidar_mixture, lidar_shapes, quickstart
from diffusion.storage import atomic_write
from experiments import locks, run
from experiments.plan import Job, plan
from experiments.plan_files import read_plan, write_plan
from tests.checks import refused
from tests.small_configs import ROWS, judged_config

UNNAMED = '{"id": "x", "verb": "train", "row": "x", "seed": 0, "needs": ["y"], "config": {}}'


def test_plan_is_read_as_written_and_a_line_that_is_not_a_job_raises(tmp_path):
    jobs, path = plan(ROWS, judged_config()), tmp_path / "plan.jsonl"
    path.write_text(write_plan(jobs))
    assert read_plan(path) == jobs
    empty = UNNAMED.replace('["y"]', "{}")
    job = json.loads(write_plan(jobs[-1:]))
    outside = job | {"needs": {"weights": "../other"}}
    lines = (UNNAMED, empty, "not json", "[1, 2]", "7", '{"id": 1, "other": 2}', "[" * 100_000)
    for line in (*lines, *map(json.dumps, (outside, job | {"seed": "0"}, job | {"row": 1}, job | {"config": []}))):
        path.write_text(write_plan(jobs[:1]) + line + "\n")
        with refused(r"jobs: line 2 of .*plan\.jsonl is not a job; .*launch\.py plan"):
            read_plan(path)
    path.write_bytes(b"\xff")
    with refused(r"jobs: .*plan\.jsonl is not text; write it with"):
        read_plan(path)
    path.write_text("")
    with refused(r"jobs: .*plan\.jsonl is empty; write it with"):
        read_plan(path)
    with refused(r"jobs: .* is not a file; write it with `launch\.py plan"):
        read_plan(tmp_path)


def test_job_is_done_when_its_result_is_complete(tmp_path):
    job = Job("train-x-1", "train", "AR", 0, {}, {})
    assert job.folder(tmp_path) == tmp_path / "jobs" / "train-x-1" and not job.done(tmp_path)
    atomic_write(job.folder(tmp_path) / "result.json", '{"row": "AR"}')
    assert job.done(tmp_path)
    assert [path.name for path in job.folder(tmp_path).iterdir()] == ["result.json"], "there is no partial file"
    assert run.run_jobs([job], tmp_path) == [{"row": "AR"}], "a completed job is read, not run"


def test_two_commands_share_a_job(tmp_path, capsys):
    """The second waits for the first, and reads its result."""
    job, seen = Job("train-x-1", "train", "AR", 0, {}, {}), []

    def second():
        with locks.held(job, tmp_path) as done:
            seen.append(done)

    with ThreadPoolExecutor(1) as pool:
        with locks.held(job, tmp_path) as done:
            assert not done
            other = pool.submit(second)
            with pytest.raises(TimeoutError):
                other.result(timeout=0.2)
            atomic_write(job.folder(tmp_path) / "result.json", '{"row": "AR"}')
        other.result(timeout=60)
    assert seen == [True] and "train-x-1: another command is at it" in capsys.readouterr().err
    with locks.held(replace(job, id="failed"), tmp_path) as done, locks.held(job, tmp_path) as first:
        assert (done, first) == (False, True)


def test_job_without_the_jobs_that_it_needs_raises_and_writes_no_file(tmp_path):
    job = Job("sample-y-2", "sample", "AR", 0, {"weights": "train-x-1"}, {})
    with pytest.raises(ValueError, match=r"sample-y-2 needs train-x-1, which is not done; run that job first"):
        run.check_needs(job, tmp_path)
    assert not list(tmp_path.iterdir())


def test_default_row_of_a_verb_is_the_first_with_a_network():
    """A table may begin with exact models or held-out data, which have no training."""
    config = lidar_shapes.get_config("debug")
    rows = list(lidar_shapes.rows(config))
    assert rows[0]["name"] == "exact: base" and run.first_row(rows, config, "sample") == "exact: base"
    assert run.first_row(rows, config, "train") == run.first_row(rows, config, "evaluate") == "Reward model"
    exact = lidar_mixture.get_config("debug")
    with pytest.raises(ValueError, match="row: no row of this table has something to train"):
        run.first_row(list(lidar_mixture.rows(exact)), exact, "train")


@pytest.mark.parametrize(
    ("table", "name", "verb", "message"),
    [
        (lidar_shapes, "exact: base", "train", r"exact model \(model.net=picture_oracle\) .* 'Reward model', 'base'"),
        (lidar_shapes, "exact: LiDAR 8", "evaluate", "'exact: LiDAR 8' is an exact model .* nothing to evaluate"),
        (lidar_mixture, "none, DDPM", "train", "nothing to train; no row here has a network; use sample"),
        (
            quickstart,
            "Held-out text",
            "train",
            r"held-out data \(sample.policy=data\) with nothing to train; .* 'MDLM'",
        ),
    ],
)
def test_training_of_rows_without_a_network_raises(table, name, verb, message, tmp_path):
    with refused(message):
        run.run_row(table, table.get_config("debug"), verb, name, {}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_hosts_that_plan_different_jobs_are_named(monkeypatch, tmp_path):
    """Their ids differ where a user's files do, and each host would wait for the other."""
    job = Job("train-x-1", "train", "AR", 0, {}, {})
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda number: np.array([number, number]))
    run.check_hosts([job])
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda number: np.array([number, number + 1]))
    with refused(r"jobs: the processes plan different jobs; .* equal on every host"):
        run.run_jobs([job], tmp_path)
    assert not list(tmp_path.iterdir())
