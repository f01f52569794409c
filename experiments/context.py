"""What every verb needs of a job: its data, its network, its mesh and its weights."""

import functools
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffusion import build
from diffusion.build.gaussian import EXACT
from diffusion.build.gaussian import NETS as GAUSSIAN_NETS
from diffusion.data import Dataset, load_dataset
from diffusion.train.mesh import check_batch, make_mesh, put_key
from diffusion.train.weights import load_weights, weights_exist
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
        """The key from which every other is derived, on all devices."""
        return put_key(jax.random.key(self.config.seed), self.mesh)


def read_data(config: ConfigDict, workdir: Path) -> Dataset:
    """The data set of a config, cached under the work directory unless the config says where."""
    fields = config.data.to_dict()
    fields["cache_dir"] = fields["cache_dir"] or str(workdir / "cache")
    return opened(tuple(fields.items()))


@functools.lru_cache(maxsize=4)
def opened(fields: tuple) -> Dataset:
    """A data set stays open for the jobs that share it."""
    return load_dataset(ConfigDict(dict(fields)))


def check(job: Job, workdir: Path) -> Context:
    """Build everything that a job will use, short of arrays, and return it.

    Raises:
      ValueError: naming the first field that is wrong, before anything was computed or written.
    """
    made = context(job, workdir)
    config = made.config
    if config.model.net not in EXACT:
        build.objective(config, made.system)
    settings = build.settings(config)
    build.optimizer(config)
    if job.verb == "train":
        check_batch(settings.batch, made.mesh, settings.accumulate)
        for split in ("train", "validation"):
            made.dataset.split(split)
        if made.system.base and not (config.start or config.checkpoint):
            raise ValueError("start: an error predictor learns from a trained denoiser; set it, or pass a checkpoint")
    if job.verb == "evaluate":
        if config.model.net != "reward":
            build.estimators(config)
        check_batch(config.evaluate.batch, made.mesh, field="evaluate.batch")
        for name, fields in config.evaluate.zero_shot.items():
            path = fields.get("path", "")
            if config.evaluate.zero_shot_required and not (path and Path(path).expanduser().exists()):
                field = f"evaluate.zero_shot.{name}.path"
                raise ValueError(
                    f"{field}: {path!r} does not exist; pass --config.{field}=FILE_OR_FOLDER, or "
                    "--config.evaluate.zero_shot_required=False to leave empty cells"
                )
    if job.verb == "sample" and config.sample.policy != "data" and config.model.net not in GAUSSIAN_NETS:
        build.sampler(config, made.system)
        check_batch(config.sample.batch, made.mesh, field="sample.batch")
    if config.checkpoint:
        weights_exist(Path(config.checkpoint))
    return made


def context(job: Job, workdir: Path) -> Context:
    """Read the data and build the network of a job."""
    config = ConfigDict(job.config)
    dataset = read_data(config, workdir)
    system = build.system(config, dataset.tokenizer.vocab_size)
    mesh = make_mesh(**config.mesh)
    return Context(config, job.folder(workdir), workdir, dataset, system, mesh)


def trained_weights(job: Job, config: ConfigDict, system: build.System, mesh: Mesh, workdir: Path) -> Params:
    """The averaged weights that a job evaluates: those of the training that it needs, or of `config.checkpoint`.

    A row that starts from another one is trained, from the checkpoint where there is one.
    """
    given = config.checkpoint and not config.start
    folder = Path(config.checkpoint) if given else workdir / "jobs" / job.needs[0] / "weights"
    return load_weights(folder, system.init, mesh)
