"""What every verb needs of a job: its data, its network, its mesh and its weights."""

from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffusion import build
from diffusion.data import Dataset, load_dataset
from diffusion.train.mesh import make_mesh
from diffusion.train.weights import load_weights
from diffusion.types import Params
from experiments.jobs import Job


@dataclass(frozen=True)
class Context:
    """The objects of one job."""

    config: ConfigDict
    folder: Path
    workdir: Path
    dataset: Dataset
    system: build.System
    mesh: Mesh

    @property
    def root(self) -> jax.Array:
        """The key from which every other is derived."""
        return jax.random.key(self.config.seed)


def read_data(config: ConfigDict, workdir: Path) -> Dataset:
    """The data set of a config, cached under the work directory unless the config says where."""
    fields = ConfigDict(config.data)
    fields.cache_dir = config.data.cache_dir or str(workdir / "cache")
    return load_dataset(fields)


def context(job: Job, workdir: Path) -> Context:
    """Read the data and build the network of a job."""
    config = ConfigDict(job.config)
    dataset = read_data(config, workdir)
    system = build.system(config, dataset.tokenizer.vocab_size)
    mesh = make_mesh(**config.mesh)
    return Context(config, job.folder(workdir), workdir, dataset, system, mesh)


def trained_weights(job: Job, config: ConfigDict, system: build.System, mesh: Mesh, workdir: Path) -> Params:
    """The averaged weights that a job evaluates: those of `config.checkpoint`, or of the training that it needs."""
    folder = Path(config.checkpoint) if config.checkpoint else workdir / "jobs" / job.needs[0] / "weights"
    return load_weights(folder, system.init, mesh)
