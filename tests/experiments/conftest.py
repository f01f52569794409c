"""What the tests of the verbs share: the command line in this process, and a small text."""

import shutil
import sys
import sysconfig
from functools import partial
from pathlib import Path

import jax
import pytest
from absl import flags

import launch
from diffusion.data import glyphs, pair_tasks, synthetic
from diffusion.train.mesh import make_mesh
from experiments import families
from experiments.benchmarks import allocator
from experiments.plan import Job, to_json
from experiments.run_context import Run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def two_devices():
    """Verbs run on two of the simulated devices: programs for eight take longer and show nothing more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.run_context.make_mesh", partial(make_mesh, devices=jax.devices()[:2]))
        yield


@pytest.fixture(scope="session", autouse=True)
def small_data():
    """Data that are made on the spot are few: the full sets take longer to write than a debug training runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_tasks, "SENTENCES", 2000)
        patch.setattr(pair_tasks, "NUMBERS", 2000)
        patch.setitem(glyphs.PICTURES, "train", (0, 600))
        patch.setitem(glyphs.REWARDED, "train", (0, 600))
        for sizes in (glyphs.POINTS, synthetic.POINTS):
            patch.setitem(sizes, "train", 2000)
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A folder with a few of the standard library's files, for --config.data.path: all of them take long to pack."""
    folder, library = tmp_path_factory.mktemp("sources"), Path(sysconfig.get_paths()["stdlib"])
    for package in ("collections", "email", "json", "logging", "unittest", "wsgiref"):
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    """`cli(*words)` runs launch.py in this process: (status, standard output, standard error).

    Its work directory is the test's folder `runs`.
    """
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("jax.config.update", lambda *setting: None)  # the tests' own compilation cache stays
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: True)  # tests that follow need the memory

    def call(*words):
        # Flags are the process's: forget the call before, and the overrides that it defined.
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)
        for name in ("config", "row", "jobs", "index", "topology", "publish", "results", "trace"):
            flags.FLAGS[name].unparse()
        status, argv = 0, ["launch.py", *words, f"--workdir={tmp_path / 'runs'}"]
        monkeypatch.setattr(sys, "argv", argv)  # config overrides are read from there
        try:
            launch.main(launch.parse(argv))
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def run_of(config, dataset, folder, needs=None):
    """A run of this config and these data below a folder, whose network is not used."""
    system = families.system(config, dataset.tokenizer.vocab_size)
    job = Job("job", "sample", "row", 0, needs or {}, to_json(config))
    return Run(job, config, folder, dataset, system, make_mesh())


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with a small text, and a place for what is packed of it."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("".join(f"the {number} words of the line that is read\n" for number in range(300)))
    return folder


@pytest.fixture(scope="module")
def fields(text):
    """The fields of a config that make its table read the small text and finish at once."""
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
