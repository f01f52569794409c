"""Fixtures for tests of the verbs: the command line in this process, and small data."""

import json
import shutil
import sys
import sysconfig
from functools import partial
from pathlib import Path

import jax
import pytest

import launch
from diffusion.data import glyphs, pair_tasks, synthetic
from diffusion.train.mesh import make_mesh
from experiments import families
from experiments.benchmarks import allocator
from experiments.identity import to_json
from experiments.plan import Job
from experiments.run_context import Run
from tests import command_flags

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Run verbs on two of the simulated devices, because programs for eight take longer to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.run_context.make_mesh", partial(make_mesh, devices=jax.devices()[:2]))
        yield


@pytest.fixture(scope="module", autouse=True)
def small_data():
    """Reduce generated data, because writing the full sets takes longer than a debug training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_tasks, "SENTENCES", 2000)
        patch.setattr(pair_tasks, "NUMBERS", 2000)
        patch.setitem(glyphs.IMAGES, "train", (0, 600))
        patch.setitem(glyphs.REWARDED_EXAMPLES, "train", (0, 600))
        for sizes in (synthetic.MIXTURE_POINTS, synthetic.POINTS):
            patch.setitem(sizes, "train", 2000)
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """Return a folder with a few packages of the standard library for --config.data.path, which are packed fast."""
    folder, library = tmp_path_factory.mktemp("sources"), Path(sysconfig.get_paths()["stdlib"])
    for package in ("collections", "email", "json", "logging", "unittest", "wsgiref"):
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """Return `cli(*words)`, which runs launch.py in this process: (status, standard output, standard error).

    Its work directory is `runs` in the folder of the test.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("jax.config.update", lambda *setting: None)  # keeps the compilation cache of the tests
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)  # later tests need the memory

    def call(*words):
        command_flags.reset()
        status, argv = 0, ["launch.py", *words, f"--workdir={tmp_path / 'runs'}"]
        monkeypatch.setattr(sys, "argv", argv)  # config overrides are read from there
        try:
            launch.main(launch.parse(argv))
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def succeed(cli):
    """Return `succeed(*words)`, which runs launch.py like `cli` and fails at an error: (standard output and error)."""

    def call(*words):
        status, out, err = cli(*words)
        assert status == 0, err
        return out, err

    return call


def one_line(result, *parts):
    """Check a result of `cli` for status 2, an empty standard output, and one line with these parts."""
    status, out, err = result
    assert (status, out, len(err.strip().splitlines())) == (2, "", 1), result
    assert all(part in err for part in parts), err


def words_of(fields):
    """Return config fields as words of the command line."""
    return [f"--config.{name}={value}" for name, value in fields.items()]


def results_of(workdir):
    """Return the results of all jobs by verb and row."""
    results = [json.loads(path.read_text()) for path in (workdir / "jobs").glob("*/result.json")]
    return {(each["verb"], each["row"]): each for each in results}


def run_of(config, dataset, folder, needs=None):
    """Return a run with this config, data set and work directory; its network is not used."""
    system = families.system(config, dataset.tokenizer.vocab_size)
    job = Job("job", "sample", "row", 0, needs or {}, to_json(config))
    return Run(job, config, folder, dataset, system, make_mesh())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a folder with a small text and room for its cache."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("".join(f"the {number} words of the line that is read\n" for number in range(300)))
    return folder


@pytest.fixture(scope="module")
def fields(text):
    """Return config fields with which a table reads the small text and finishes fast."""
    return {
        "data.source": "text_files",
        "data.path": str(text / "text.txt"),
        "data.document": "line",
        "data.cache_dir": str(text / "cache"),
        "judge.name": "none",
        "quality.parse": False,
        "evaluate.batches": 1,
        "train.steps": 4,
        "train.evaluate_every": 4,
        "train.evaluate_batches": 1,
        "train.checkpoint_every": 4,
    }
