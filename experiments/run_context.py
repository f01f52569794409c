"""What every verb needs of a job: its data, its network, its mesh and its weights."""

import functools
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffusion.data import Dataset, load_dataset
from diffusion.data.pair_sources import SOURCES as PAIRS
from diffusion.data.pairs import PairDataset, PairSettings, load_pairs
from diffusion.train.mesh import check_batch, make_mesh, put_key
from diffusion.train.weights import load_weights, weights_exist
from diffusion.types import Params
from experiments import families
from experiments.families.seq2seq import NET as PAIR_NET
from experiments.families.text_to_image import EXACT
from experiments.families.text_to_image import NETS as GAUSSIAN_NETS
from experiments.plan import Job


@dataclass(frozen=True)
class Context:
    """The objects of one job."""

    config: ConfigDict
    folder: Path
    workdir: Path
    dataset: Dataset | PairDataset
    system: families.System
    mesh: Mesh

    @property
    def root(self) -> jax.Array:
        """The key from which every other is derived, on all devices."""
        return put_key(jax.random.key(self.config.seed), self.mesh)


def read_data(config: ConfigDict, workdir: Path) -> Dataset | PairDataset:
    """The data set of a config, cached under the work directory unless the config says where."""
    told = config.data.to_dict()
    told["cache_dir"] = told["cache_dir"] or str(workdir / "cache")
    return opened(tuple(told.items()))


@functools.lru_cache(maxsize=4)
def opened(told: tuple) -> Dataset | PairDataset:
    """A data set stays open for the jobs that share it."""
    given = dict(told)
    return pair_dataset(given) if given["source"] in PAIRS else load_dataset(ConfigDict(given))


def pair_dataset(given: dict) -> PairDataset:
    """Pairs from the folder `data.path`, or from a folder below it that is called as the source."""
    below = Path(given["path"]).expanduser() / given["source"]
    path = str(below) if given["path"] and below.is_dir() else given["path"]
    known: dict[str, Any] = {each.name: given[each.name] for each in fields(PairSettings)}
    known["path"] = path
    return load_pairs(PairSettings(**known))


def check(job: Job, workdir: Path) -> Context:
    """Build everything that a job will use, short of arrays, and return it.

    Raises:
      ValueError: naming the first field that is wrong, before anything was computed or written.
    """
    made = context(job, workdir)
    config = made.config
    if config.model.net not in EXACT:
        families.objective(config, made.system)
    settings = families.settings(config)
    families.optimizer(config)
    if job.verb == "train":
        check_batch(settings.batch, made.mesh, settings.accumulate)
        for split in ("train", "validation"):
            made.dataset.split(split)
        if made.system.base and not (config.start or config.checkpoint):
            raise ValueError("start: an error predictor learns from a trained denoiser; set it, or pass a checkpoint")
    if job.verb == "evaluate":
        if config.model.net == PAIR_NET:
            raise ValueError("evaluate: sequence-to-sequence models are measured by what they write; use sample")
        if config.model.net != "reward":
            for name in families.estimators(config):
                families.estimate(config, made.system, name)
        check_batch(config.evaluate.batch, made.mesh, field="evaluate.batch")
        for name, fields in config.evaluate.zero_shot.items():
            path = fields.get("path", "")
            if config.evaluate.zero_shot_required and not (path and Path(path).expanduser().exists()):
                field = f"evaluate.zero_shot.{name}.path"
                raise ValueError(
                    f"{field}: {path!r} does not exist; pass --config.{field}=FILE_OR_FOLDER, or "
                    "--config.evaluate.zero_shot_required=False to leave empty cells"
                )
    own = config.model.net in GAUSSIAN_NETS or made.dataset.domain == "pairs"  # checked with what they sample
    if job.verb == "sample" and config.sample.policy != "data" and not own:
        families.sampler(config, made.system)
        check_batch(config.sample.batch, made.mesh, field="sample.batch")
    if config.checkpoint:
        weights_exist(Path(config.checkpoint))
    return made


def context(job: Job, workdir: Path) -> Context:
    """Read the data and build the network of a job."""
    config = ConfigDict(job.config)
    dataset = read_data(config, workdir)
    pairs, translates = dataset.domain == "pairs", config.model.net == PAIR_NET
    if (pairs and not translates) or (translates and dataset.domain not in ("pairs", "text")):
        raise ValueError(
            f"model.net: {PAIR_NET} goes with pairs ({', '.join(sorted(PAIRS))}), which no other does, and with text, "
            "where it has no source"
        )
    system = families.system(config, dataset.tokenizer.vocab_size)
    if dataset.domain == "pairs":
        system = replace(system, end=dataset.tokenizer.eos_id)
    mesh = make_mesh(**config.mesh)
    return Context(config, job.folder(workdir), workdir, dataset, system, mesh)


def trained_weights(job: Job, config: ConfigDict, system: families.System, mesh: Mesh, workdir: Path) -> Params:
    """The averaged weights that a job evaluates: those of the training that it needs, or of `config.checkpoint`.

    A row that starts from another one is trained, from the checkpoint where there is one.
    """
    given = config.checkpoint and not config.start
    folder = Path(config.checkpoint) if given else workdir / "jobs" / job.needs[0] / "weights"
    return load_weights(folder, system.init, mesh)
