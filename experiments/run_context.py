"""Runs: a job with its config, data, network and mesh, which are built and checked before any computation."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int
from ml_collections import ConfigDict

from diffusion.data import Dataset, load_dataset, stored_tokenizers
from diffusion.storage import cache_of
from diffusion.train.mesh import make_mesh, put_key
from diffusion.train.weights import load_weights
from diffusion.types import Params
from experiments import families
from experiments.families import Family, System
from experiments.families.pair_network import has_sources
from experiments.identity import localized
from experiments.plan import Job, read_config


@dataclass(frozen=True)
class Run:
    """A job with its config, data, network and mesh; a training traces `profile` of its steps with the profiler."""

    job: Job
    config: ConfigDict
    workdir: Path
    dataset: Dataset
    system: System
    mesh: Mesh
    profile: int = 0

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

    def folder_of(self, need: str) -> Path:
        """Folder of another job; raises ValueError where an edited plan does not name it."""
        if need not in self.job.needs:
            raise ValueError(f"jobs: {self.job.id} names no job for its {need}; write the plan again")
        return self.workdir / "jobs" / self.job.needs[need]

    def weights_of(self, need: str) -> Path:
        """Folder of the weights of another job."""
        return self.folder_of(need) / "weights"

    @property
    def tokenizer(self) -> str:
        """Record of the tokenizer, which is stored with weights that read its ids."""
        return stored_tokenizers.record(self.dataset.tokenizer, self.dataset.label_names)

    def load(self, need: str) -> tuple[ConfigDict, System, Params]:
        """Config, network and averaged weights of another job."""
        config = read_config(self.folder_of(need))
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


def read_data(config: ConfigDict, workdir: Path, weights: Iterable[Path] = ()) -> Dataset:
    """Data set of a config, read with the tokenizer that is stored in the first of the folders `weights` with one.

    The default cache is in the work directory.

    Raises:
      ValueError: for the first invalid field, or a tokenizer that is not the stored one.
    """
    settings = config.data.to_dict()
    settings["cache_dir"] = settings["cache_dir"] or str(cache_of(workdir))
    return open_data(tuple(settings.items()), *stored_tokenizers.first(weights))


@functools.lru_cache(maxsize=4)
def open_data(settings: tuple, folder: Path, record: str) -> Dataset:
    """Data set, which stays open for the jobs that share it, read with the tokenizer of a record unless it is empty."""
    data = ConfigDict(dict(settings))
    if not record:
        return load_dataset(data)
    stored = stored_tokenizers.parse(record, folder)
    if stored.name != data.tokenizer:
        raise ValueError(
            f"data.tokenizer: the weights in {folder} were trained with {stored.name!r}, not with {data.tokenizer!r}; "
            f"pass --config.data.tokenizer={stored.name}"
        )
    # A vocabulary that the user names must be the stored one; otherwise that need not be at hand.
    dataset = load_dataset(data, None if data.tokenizer_path else stored.tokenizer)
    if dataset.tokenizer.fingerprint != stored.fingerprint:
        field = "data.tokenizer_path" if data.tokenizer_path else "data.path"
        raise ValueError(
            f"{field}: the weights in {folder} were trained with another vocabulary of {stored.name!r}; "
            + (f"leave it empty to read with that of {folder}" if data.tokenizer_path else "pass the data of that time")
        )
    return dataset


def weights_read(job: Job, workdir: Path, checkpoint: str) -> list[Path]:
    """Folders of the weights of a job, the latest first, some of which may not be written yet.

    A training that was interrupted goes on with the tokenizer that it began with.
    """
    own = [job.folder(workdir)] if job.verb == "train" else []
    needed = [workdir / "jobs" / job.needs[role] for role in ("weights", "start") if role in job.needs]
    return [*own, *needed, *([Path(checkpoint)] if checkpoint else [])]


def build(job: Job, workdir: Path) -> Run:
    """Read the data and build the network of a job.

    Raises:
      ValueError: for the first invalid field, which it names.
    """
    config = ConfigDict(localized(job.config))
    weights = weights_read(job, workdir, config.checkpoint)
    dataset = read_data(config, workdir, weights)
    families.check_domain(config, dataset.domain)
    check_labels(config, dataset, *stored_tokenizers.first(weights))
    system = families.system(config, dataset.tokenizer.vocab_size)
    if has_sources(config):
        system = replace(system, end=dataset.tokenizer.eos_id)
    return Run(job, config, workdir, dataset, system, make_mesh(**config.mesh))


def check_labels(config: ConfigDict, dataset: Dataset, folder: Path, record: str) -> None:
    """Raise ValueError where the classes of a network are not those of the data, or of the data of its training.

    Args:
      folder: the folder of the weights.
      record: what is stored with them; may be empty.
    """
    trained = stored_tokenizers.parse(record, folder).labels if record and config.model.labels else ()
    if trained and trained != dataset.label_names:
        raise ValueError(
            f"data.path: the weights in {folder} were trained with the classes {', '.join(trained[:5])}, and the data "
            f"have {', '.join(dataset.label_names[:5])}; pass data with the same classes"
        )
    if config.data.labels != "none" and config.model.labels not in (0, dataset.labels):
        names = ", ".join(dataset.label_names[:5]) + (", ..." if dataset.labels > 5 else "")
        raise ValueError(
            f"model.labels: data.labels={config.data.labels} finds {dataset.labels} ({names}); pass "
            f"--config.model.labels={dataset.labels}, or 0 for a network without classes"
        )
