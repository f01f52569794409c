"""The command line: one-line errors with status 2, and a whole table."""

import json
import os
import re
import signal
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
from experiments import devices
from experiments.pods.local import free_port
from tests.experiments.conftest import ROOT, one_line

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
        (["run", DEBUG, "--config.train.steps=many"], ["train.steps"]),
        (["run", DEBUG, "--config.data.source=text_files", "--config.data.path=/no/such/folder"], ["data.path"]),
        (["run", DEBUG, "--config.mesh.data=3"], ["mesh", "devices"]),
        (["run", DEBUG, "--config.train.batch=13"], ["train.batch", "14"]),
        (["train", DEBUG, "--row=Nobody"], ["row", "MDLM"]),
        (["plan", DEBUG, "--config.process.schedule=wavy"], ["process.schedule", "log_linear", "(row 'AR')"]),
        (["run", "--jobs=nowhere.jsonl"], ["jobs", "plan"]),
        (["table", DEBUG], ["table", "run"]),
        (["run", DEBUG, "more"], ["'more'", "--FLAG=VALUE"]),
        (["run", DEBUG, "--row=\udcff"], ["is not UTF-8 text"]),
        (["run", DEBUG, "--rows=AR"], ["--rows: ", "--help"]),
        (["run", DEBUG, "--process=1"], ["--process: 1", "--coordinator"]),
        (["run", DEBUG, "--coordinator=127.0.0.1:9"], ["--processes: missing"]),
        (["run", DEBUG, "--coordinator=here", "--processes=2", "--process=0"], ["--coordinator: 'here'", "HOST:PORT"]),
        (["run", DEBUG, "--coordinator=a:1", "--processes=2", "--process=2"], ["--process: 2 is not among"]),
        (["pods", DEBUG, "--backend=local", "--hosts=1000000"], ["--hosts: 1000000"]),
        (["plan", "--config=LICENSE"], ["--config: cannot load the file ("]),
        (["plan", "--config=configs"], ["--config: "]),
        (["plan", "--config=configs/recipes/small.py"], ["--config: "]),
        (["plan", "--config.train.steps=3", DEBUG], ["--config: comes after its fields"]),
        (["plan", DEBUG, "--config.data.length[0]=3"], ["--config: no such field"]),
        (["plan", DEBUG, "--sweep.seeds=1000000000000"], ["sweep.seeds: ", "9999"]),
        (["plan", DEBUG, "--config.seeds=('a',)"], ["seeds: must be whole numbers", "'a'"]),
        (["plan", DEBUG, "--config.seeds=(-1,)"], ["seeds: must be whole numbers from 0"]),
        (["plan", DEBUG, "--config.cpu_devices=100000"], ["cpu_devices: must lie in 1 .. 256"]),
        (["plan", DEBUG, "--config.evaluate.also=(True,)"], ["evaluate.also: must be a tuple", "be a text"]),
        (["plan", DEBUG, "--config.model.hidden=99999999999999999999"], ["model.hidden: must not exceed"]),
        (["plan", DEBUG, "--config.optimizer.learning_rate=inf"], ["optimizer.learning_rate: must be a finite number"]),
        (["compile", DEBUG, "--config.seeds=()"], ["seeds: empty"]),
        (["compile", DEBUG, "--config.sample.temperature=nan"], ["sample.temperature: must be a finite number"]),
        (["plan", DEBUG, "--config.data.source=text_files", f"--config.data.path={'x' * 300}"], ["File name too long"]),
        (["convert", "--from=mdlm", "--checkpoint=LICENSE", "--heads=-1"], ["--heads: -1"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_errors_are_one_line(cli, words, expected):
    one_line(cli(*words), "launch.py: ", *expected)


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no CUDA driver\nin two lines")])
def test_a_platform_without_devices_is_one_line(cli, monkeypatch, error):
    """JAX 0.10 raises an AssertionError without a message where the plugin of the platform is not installed."""

    def devices():
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", devices)
    one_line(cli("plan", DEBUG), "launch.py: JAX_PLATFORMS: no device of cuda (", "unset it")


PLAN = """
import runpy, sys
sys.argv = ["launch.py", "plan", "--config=configs/quickstart.py:debug"]
try:
    runpy.run_path("launch.py", run_name="__main__")
except SystemExit:
    print(*sys.modules, file=sys.stderr)
"""


def test_plans_import_no_library_that_computing_alone_needs():
    """The modules of tasks are imported where their kind of data is, and large libraries where they are used."""
    planned = subprocess.run([sys.executable, "-c", PLAN], cwd=ROOT, capture_output=True, text=True)
    assert planned.stdout.startswith('{"id": "train-')
    heavy = {"grain", "tensorflow_datasets", "orbax.checkpoint", "matplotlib", "scipy.special", "rdkit", "datasets"}
    assert not heavy & set(planned.stderr.split())


def test_a_process_whose_partner_does_not_come_ends_with_one_line():
    start = f"devices.start_processes('127.0.0.1:{free_port()}', 2, 0, False, patience=2)"
    command = [sys.executable, "-c", f"from experiments import devices; {start}"]
    alone = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    waiting, line = alone.stderr.strip().splitlines()
    assert (alone.returncode, alone.stdout) == (2, "") and waiting.startswith("process 0 of 2: waiting")
    assert re.fullmatch(r"launch\.py: --coordinator: not all of 2 processes came to [0-9.:]+ in 2 s; .*", line)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("UNKNOWN: Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:1", True),
        ("RESOURCE_EXHAUSTED: out of memory", False),
        ("data.path: Gloo does not exist", False),
    ],
)
@pytest.mark.parametrize("kind", [jax.errors.JaxRuntimeError, ValueError])
def test_an_error_of_a_lost_process_is_told_from_others(text, lost, kind):
    said = devices.lost(kind(text))
    assert said.startswith("another process has ended (UNKNOWN: Gloo") if lost else said == ""


def launch_process(*words):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    options = dict(cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "launch.py", *words], **options)


def launch_pair(*words):
    """Start two processes of one run, on loopback."""
    words += (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    return [launch_process(*words, f"--process={index}") for index in range(2)]


def wait(process):
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err


def weights_of(workdir: Path, job: str):
    """Return the trained weights of a job."""
    folder, device = workdir / "jobs" / job / "weights", SingleDeviceSharding(jax.devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        shapes = checkpointer.metadata(folder).item_metadata.tree
        target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
        return checkpointer.restore(folder, target)


@pytest.mark.slow
def test_killed_training_continues_to_bitwise_equal_weights(tmp_path):
    """After SIGKILL the same command continues from the last checkpoint."""

    def words(workdir):
        return "train", DEBUG, "--row=AR", f"--workdir={workdir}", "--config.train.steps=40"

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    wait(launch_process(*words(whole)))
    job = json.loads(next((whole / "jobs").glob("train-*/result.json")).read_text())["job"]

    process = launch_process(*words(killed))
    checkpoints = killed / "jobs" / job / "checkpoints"
    deadline = time.time() + 300
    while not list(checkpoints.glob("[0-9]*")) and time.time() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(checkpoints.glob("[0-9]*"))
    assert not (killed / "jobs" / job / "result.json").exists()

    wait(launch_process(*words(killed)))
    chex.assert_trees_all_equal(weights_of(whole, job), weights_of(killed, job))


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_and_saves_both(tmp_path):
    """Both end with status 143 at one step, from which the same command goes on."""
    words = ("train", DEBUG, "--row=AR", f"--workdir={tmp_path}", "--config.train.steps=3000")
    words += ("--config.train.checkpoint_every=3000", "--config.train.evaluate_every=3000")
    pair = launch_pair(*words)
    deadline = time.time() + 300
    while not any(path.stat().st_size for path in tmp_path.glob("jobs/train-*/metrics.jsonl")):
        assert time.time() < deadline and all(process.poll() is None for process in pair)
        time.sleep(0.1)
    pair[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in pair]
    assert [process.returncode for process in pair] == [143, 143], errors
    (saved,) = tmp_path.glob("jobs/train-*/checkpoints/[0-9]*")
    assert 0 < int(saved.name) < 3000 and all(f"stopped at step {saved.name};" in error for error in errors)


@pytest.mark.slow
def test_two_processes_have_the_results_of_one(tmp_path):
    """Data, noise, gradients, scores and samples do not depend on the number of hosts."""
    one, two = tmp_path / "one", tmp_path / "two"
    words = ("sample", DEBUG, "--row=MDLM, ancestral, 2 steps")
    single = launch_process(*words, f"--workdir={one}")
    for process in (single, *launch_pair(*words, f"--workdir={two}")):
        wait(process)
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


def test_table_is_equal_after_run_plan_and_table(cli, succeed, tmp_path):
    """The verb run, then plan and run --jobs for completed jobs, then table have the same rows."""
    words = (DEBUG, "--config.mesh.data=2")
    out, _ = succeed("run", *words)
    folder = tmp_path / "runs" / "tables" / "quickstart.debug"
    for name in ("table.md", "rows.jsonl", "loss.png", "quality.png", "samples.md"):
        assert (folder / name).stat().st_size > 0
    assert "MDLM, ancestral, 4 steps" in out
    rows = (folder / "rows.jsonl").read_text()
    for row in map(json.loads, rows.splitlines()):
        assert {"commit", "versions", "device_kind", "device_count", "seed", "config", "seconds", "data"} <= set(row)

    plan, _ = succeed("plan", *words)
    jobs = [json.loads(line) for line in plan.splitlines()]
    assert [job["verb"] for job in jobs[:2]] == ["train", "train"]
    path = tmp_path / "jobs.jsonl"
    path.write_text(plan)
    err = succeed("run", f"--jobs={path}", "--index=0")[1]
    assert "done before" in err and "jobs: 1; programs: 0 compiled" in err
    one_line(cli("run", f"--jobs={path}", "--index=99"), "index", "jobs")
    succeed("table", *words)
    assert (folder / "rows.jsonl").read_text() == rows


def test_cpu_is_split_into_the_requested_devices(monkeypatch):
    """The number in XLA_FLAGS has priority."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=folder")
    for count, ending in ((1, "folder"), (2, "folder --xla_force_host_platform_device_count=2"), (4, "_count=2")):
        devices.split_cpu(count)
        assert os.environ["XLA_FLAGS"].endswith(ending)
