"""The command line: one-line errors with status 2, and a whole table."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import SingleDeviceSharding

import launch

ROOT = Path(__file__).parents[2]
DEBUG = "--config=configs/quickstart.py:debug"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Return a folder for packed data."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cli(cli, cache, sources):
    """Return the command line with small data for the quickstart and a shared cache."""

    def call(*words):
        has_source = any("data.source" in word for word in words)
        data = {"cache_dir": cache} | ({} if has_source else {"path": sources})
        return cli(*words, *(f"--config.data.{name}={value}" for name, value in data.items() if DEBUG in words))

    return call


def one_line(result, *words):
    """Check for status 2, an empty standard output, and one line with these words."""
    status, out, err = result
    lines = err.strip().splitlines()
    assert (status, out, len(lines)) == (2, "", 1), result
    assert lines[0].startswith("launch.py: ")
    for word in words:
        assert word in lines[0]


def test_help_shows_every_verb_with_an_example(cli):
    status, out, _ = cli("--help")
    assert status == 0
    for verb in launch.VERBS:
        assert f"launch.py {verb} " in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["paint", DEBUG], ["paint", "run"]),
        (["run"], ["--config"]),
        (["run", "--config=configs/nowhere.py"], ["--config"]),
        (["run", "--config=configs/quickstart.py:huge"], ["huge", "local"]),
        (["run", DEBUG, "--config.train.stepz=3"], ["stepz"]),
        (["run", DEBUG, "--config.memory.rows=masked"], ["no such field", "rows", "configs/base.py"]),
        (["plan", DEBUG, "--config.memory.adapter=table"], ["memory.adapter: unknown 'table'", "linear, none"]),
        (["run", DEBUG, "--config.train.steps=many"], ["train.steps"]),
        (["run", DEBUG, "--config.train.steps=0"], ["train.steps", "positive"]),
        (["run", DEBUG, "--config.train.batch=-8"], ["train.batch"]),
        (["run", DEBUG, "--config.data.source=nowhere"], ["data.source", "python_stdlib"]),
        (["run", DEBUG, "--config.data.source=text_files"], ["data.path"]),
        (["run", DEBUG, "--config.data.source=text_files", "--config.data.path=/no/such/folder"], ["data.path"]),
        (["run", DEBUG, "--config.process.schedule=wavy"], ["process.schedule", "log_linear"]),
        (["run", DEBUG, "--config.mesh.data=3"], ["mesh", "devices"]),
        (["run", DEBUG, "--config.train.batch=13"], ["train.batch", "14"]),
        (["train", DEBUG, "--row=Nobody"], ["row", "MDLM"]),
        (["plan", DEBUG, "--config.process.schedule=wavy"], ["process.schedule", "log_linear", "(row 'AR')"]),
        (["plan", DEBUG, "--config.model.heads=3"], ["heads", "row"]),
        (["plan", DEBUG, "--config.evaluate.estimator=guess"], ["evaluate.estimator"]),
        (["run", "--jobs=nowhere.jsonl"], ["jobs", "plan"]),
        (["table", DEBUG], ["table", "run"]),
        (["evaluate", DEBUG, "--config.checkpoint=/no/weights"], ["checkpoint"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_errors_are_one_line(cli, words, expected):
    one_line(cli(*words), *expected)


def launch_process(*words, **options):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return subprocess.Popen(
        [sys.executable, "launch.py", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def weights_of(workdir: Path, job: str):
    """Return the trained weights of a job."""
    folder, device = workdir / "jobs" / job / "weights", SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(folder).item_metadata.tree
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
        return checkpointer.restore(folder, target)


def train_words(workdir, *more):
    return ("train", DEBUG, "--row=AR", f"--workdir={workdir}", "--config.train.steps=40", *more)


@pytest.mark.slow
def test_killed_training_continues_to_bitwise_equal_weights(tmp_path):
    """After SIGKILL the same command continues from the last checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = launch_process(*train_words(whole))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    job = json.loads(next((whole / "jobs").glob("train-*/result.json")).read_text())["job"]

    process = launch_process(*train_words(killed))
    checkpoints = killed / "jobs" / job / "checkpoints"
    deadline = time.time() + 300
    while not list(checkpoints.glob("[0-9]*")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(checkpoints.glob("[0-9]*"))
    assert not (killed / "jobs" / job / "result.json").exists()

    process = launch_process(*train_words(killed))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    chex.assert_trees_all_equal(weights_of(whole, job), weights_of(killed, job))


@pytest.mark.slow
def test_two_processes_have_the_results_of_one(tmp_path):
    """Data, noise, gradients, scores and samples do not depend on the number of hosts."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("sample", DEBUG, "--row=MDLM, ancestral, 2 steps")
    single = launch_process(*words, f"--workdir={one}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pair = [
        launch_process(
            *words, f"--workdir={two}", f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={index}"
        )
        for index in range(2)
    ]
    for process in (single, *pair):
        _, err = process.communicate(timeout=900)
        assert process.returncode == 0, err
    for path in (one / "jobs").glob("*/result.json"):
        expected, found = (
            json.loads((root / "jobs" / path.parent.name / "result.json").read_text()) for root in (one, two)
        )
        assert found["processes"] == 2
        for name, value in expected["metrics"].items():
            if isinstance(value, float) and not name.startswith("seconds"):
                assert found["metrics"][name] == pytest.approx(value, rel=2e-2, abs=1e-3), (path, name)
        if expected["verb"] == "train":
            weights = (weights_of(root, expected["job"]) for root in (one, two))
            chex.assert_trees_all_close(*weights, rtol=1e-3, atol=1e-4)


def test_table_is_equal_after_run_plan_and_table(cli, tmp_path):
    """The verb run, then plan and run --jobs for completed jobs, then table have the same rows."""
    mesh = ("--config.mesh.data=2",)
    status, out, err = cli("run", DEBUG, *mesh)
    assert status == 0, err
    folder = tmp_path / "runs" / "tables" / "quickstart.debug"
    for name in ("table.md", "rows.jsonl", "loss.png", "quality.png", "samples.md"):
        assert (folder / name).stat().st_size > 0
    assert "MDLM, ancestral, 4 steps" in out
    rows = (folder / "rows.jsonl").read_text()
    for row in map(json.loads, rows.splitlines()):
        assert {"commit", "versions", "device_kind", "device_count", "seed", "config", "seconds", "data"} <= set(row)

    status, plan, _ = cli("plan", DEBUG, *mesh)
    jobs = [json.loads(line) for line in plan.splitlines()]
    assert [job["verb"] for job in jobs[:2]] == ["train", "train"]
    path = tmp_path / "jobs.jsonl"
    path.write_text(plan)
    status, _, err = cli("run", f"--jobs={path}", "--index=0")
    assert status == 0 and "done before" in err
    one_line(cli("run", f"--jobs={path}", "--index=99"), "index", "jobs")

    status, out, err = cli("table", DEBUG, *mesh)
    assert status == 0, err
    assert (folder / "rows.jsonl").read_text() == rows


def test_cpu_is_split_into_the_requested_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=folder")
    launch.split_cpu(1)
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=folder"
    launch.split_cpu(2)
    assert os.environ["XLA_FLAGS"] == "--xla_dump_to=folder --xla_force_host_platform_device_count=2"
    launch.split_cpu(4)
    assert os.environ["XLA_FLAGS"].endswith("_count=2"), "the number in XLA_FLAGS has priority"
