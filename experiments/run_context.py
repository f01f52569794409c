"""Runs: a job with its config, data, network and mesh, which are built and checked before any computation."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from diffusion.data import Dataset, load_dataset
from diffusion.train.mesh import make_mesh, put_key
from diffusion.train.weights import load_weights
from diffusion.types import Params
from experiments import families
from experiments.families import Family, System
from experiments.families.pair_network import has_sources
from experiments.plan import Job, read_config


@dataclass(frozen=True)
class Run:
    """A job with its config, data, network and mesh."""

    job: Job
    config: ConfigDict
    workdir: Path
    dataset: Dataset
    system: System
    mesh: Mesh

    @property
    def folder(self) -> Path:
        """Folder of the job's files."""
        return self.job.folder(self.workdir)

    @property
    def family(self) -> Family:
        """Family of the model."""
        return families.family_of(self.config)

    @property
    def root(self) -> jax.Array:
        """Key from which all others are derived, replicated over all devices."""
        return put_key(jax.random.key(self.config.seed), self.mesh)

    def weights_of(self, need: str) -> Path:
        """Folder of the weights of another job."""
        return self.workdir / "jobs" / self.job.needs[need] / "weights"

    def load(self, need: str) -> tuple[ConfigDict, System, Params]:
        """Config, network and averaged weights of another job."""
        config = read_config(self.workdir / "jobs" / self.job.needs[need])
        system = families.system(config, self.dataset.tokenizer.vocab_size)
        return config, system, load_weights(self.weights_of(need), system.init, self.mesh)

    def weights(self) -> Params:
        """Averaged weights to evaluate or sample with: those of `config.checkpoint`, or of the job's training.

        A row that starts from another one is always trained, and a checkpoint is the start of this training.
        """
        from_checkpoint = self.config.checkpoint and not self.config.start
        folder = Path(self.config.checkpoint) if from_checkpoint else self.weights_of("weights")
        return load_weights(folder, self.system.init, self.mesh)


def in_batches(count: int, size: int) -> Iterator[Int[np.ndarray, " size"]]:
    """Indices 0 .. count - 1 in batches of `size`; the last batch is padded with the last index."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size), count - 1)


def read_data(config: ConfigDict, workdir: Path) -> Dataset:
    """Data set of a config; the default cache is in the work directory."""
    settings = config.data.to_dict()
    settings["cache_dir"] = settings["cache_dir"] or str(workdir / "cache")
    return open_data(tuple(settings.items()))


@functools.lru_cache(maxsize=4)
def open_data(settings: tuple) -> Dataset:
    """Data set, which stays open for the jobs that share it."""
    return load_dataset(ConfigDict(dict(settings)))


def build(job: Job, workdir: Path) -> Run:
    """Read the data and build the network of a job.

    Raises:
      ValueError: for the first invalid field, which it names.
    """
    config = ConfigDict(job.config)
    dataset = read_data(config, workdir)
    families.check_domain(config, dataset.domain)
    check_labels(config, dataset)
    system = families.system(config, dataset.tokenizer.vocab_size)
    if has_sources(config):
        system = replace(system, end=dataset.tokenizer.eos_id)
    return Run(job, config, workdir, dataset, system, make_mesh(**config.mesh))


def check_labels(config: ConfigDict, dataset: Dataset) -> None:
    """Raise ValueError where the classes of a network are not those that are found in the data (`data.labels`)."""
    if config.data.labels != "none" and config.model.labels not in (0, dataset.labels):
        names = ", ".join(dataset.label_names[:5]) + (", ..." if dataset.labels > 5 else "")
        raise ValueError(
            f"model.labels: data.labels={config.data.labels} finds {dataset.labels} ({names}); pass "
            f"--config.model.labels={dataset.labels}, or 0 for a network without classes"
        )
