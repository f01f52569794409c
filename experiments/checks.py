"""Checks of a plan: what configs say without their data, for all jobs before the first one runs."""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from configs.base import FIELDS
from configs.schema import check_values
from diffusion.data.arrays import SHAPES
from diffusion.data.arrays import SOURCES as ARRAYS
from diffusion.data.loader import TOKENIZERS
from diffusion.data.settings import read_settings
from diffusion.data.sources import PAIRS, TEXTS
from experiments import families
from experiments.families import classifier, family_of, gpt2, masked, seq2seq
from experiments.families.base import System, lookup
from experiments.identity import default_fields, digest, localized, train_identity
from experiments.plan import Job
from experiments.tasks import task_for

# Kinds of the sources of arrays that are not in SHAPES, or whose images have prompts.
DOMAINS = {
    "image_files": "image",
    "density2d": "values",
    "shapes": "prompted",
    "shapes_rewards": "prompted",
    "geneval": "captions",
    "captions": "captions",
    "geneval_examples": "captions",
    "gaussian_mixture": "mixture",
    "qm9": "molecules",
    "simple_molecules": "molecules",
    "splice_sites": "genomes",
    "simple_introns": "genomes",
    "genomes_small": "genomes",
    "ten_species": "genomes",
    "smiles": "molecules",
    "fasta": "genomes",
}
# What the row `judge.row` must be where it scores samples of a kind of data.
SCORERS: dict[str, tuple[str, Callable[[ConfigDict], bool]]] = {
    "text": ("autoregressive", lambda config: family_of(config).CAUSAL),
    "values": ("autoregressive", lambda config: family_of(config).CAUSAL),
    "image": ("a classifier", lambda config: family_of(config) is classifier),
    "prompted": ("a reward", families.is_reward),
    "pairs": ("autoregressive", lambda config: family_of(config) is seq2seq and seq2seq.autoregressive(config)),
}


def domain_of(source: str) -> str:
    """Kind of the data of a source; raises ValueError for an unknown one."""
    kinds = dict.fromkeys(TEXTS, "text") | dict.fromkeys(SHAPES, "image") | dict.fromkeys(PAIRS, "pairs") | DOMAINS
    return lookup(kinds, source, "data.source")


def check_plan(jobs: list[Job], among: list[Job] | None = None) -> None:
    """Check all that the configs of jobs say without their data: names, counts, lengths, sizes that must divide.

    The jobs that these need are looked up `among` others (default: `jobs`).

    Raises:
      ValueError: naming the row and the first field that is wrong.
    """
    known = {job.id: job for job in among or jobs}
    initialized = set()
    for job in jobs:
        try:
            config = config_of(job)
            domain = check_data(config)
            # The vocabulary of the data may differ, on which no check depends.
            system = families.system(config, config.data.vocab_size)
            training = digest(train_identity(config))
            if training not in initialized:
                initialized.add(training)
                params = jax.eval_shape(system.init, jax.random.key(0))
                if family_of(config).TRAINED and config.optimizer.blocks == "muon":  # it needs kernels of blocks
                    jax.eval_shape(families.optimizer(config).init, params)
            check_training(config, system)
            if job.verb == "evaluate":
                check_evaluation(config, system)
            if job.verb == "sample":
                task_for(domain).check_config(config, system, domain)
                if job.needs.get("scorer") in known:
                    check_scorer(config, domain, config_of(known[job.needs["scorer"]]))
                if job.needs.get("planner") in known:
                    check_planner(config, config_of(known[job.needs["planner"]]))
        except ValueError as error:
            raise ValueError(f"{error} (row {job.row!r})") from None


def config_of(job: Job) -> ConfigDict:
    """The config of a job, with local copies of files in object stores; raises ValueError for one that is wrong."""
    check_fields(job.config)
    return ConfigDict(localized(job.config))


def check_fields(fields: dict) -> None:
    """Raise ValueError for fields without a default, or with a value that they cannot have."""
    check_names(fields, default_fields())
    check_values(fields, FIELDS)


def check_names(fields: dict, known: dict, section: str = "") -> None:
    """Raise ValueError for fields without a default, or without a value; a row may replace a whole section."""
    for name in sorted(fields.keys() | known.keys()):
        field = f"{section}{name}"
        if name not in known or name not in fields:
            problem = "no such field" if name not in known else "the section was replaced without it"
            raise ValueError(f"{field}: {problem}; the fields are in configs/base.py")
        if isinstance(known[name], dict) and not isinstance(fields[name], dict):
            raise ValueError(f"{field}: must be a section of fields, not {fields[name]!r}")
        if field == "evaluate.zero_shot":
            for each, changes in fields[name].items():
                data = default_fields()["data"]
                check_names(data | changes, data, f"{field}.{each}.")
        elif isinstance(known[name], dict):
            check_names(fields[name], known[name], f"{field}.")


def check_data(config: ConfigDict) -> str:
    """Kind of the data; raises ValueError for settings that no data have, or that the network cannot read."""
    domain = domain_of(config.data.source)
    families.check_domain(config, domain)
    if domain != "pairs":
        settings = read_settings(config.data)
        if settings.source not in ARRAYS and domain != "captions":
            lookup(dict.fromkeys(TOKENIZERS), settings.tokenizer, "data.tokenizer")
    return domain


def check_training(config: ConfigDict, system: System) -> None:
    """Raise ValueError for an objective, settings or an optimizer that do not fit."""
    if family_of(config).TRAINED:
        families.objective(config, system)
    settings = families.settings(config)
    if settings.batch % settings.accumulate:
        raise ValueError(f"train.accumulate: {settings.accumulate} does not divide train.batch={settings.batch}")
    families.optimizer(config)
    gpt2.check_label_judge(config)


def check_evaluation(config: ConfigDict, system: System) -> None:
    """Raise ValueError for unsuitable estimators, or an unknown source of other text."""
    for name in families.estimators(config):
        families.estimate(config, system, name)
    for name, changes in config.evaluate.zero_shot.items():
        if "source" in changes:
            lookup(dict.fromkeys(TEXTS), changes.source, f"evaluate.zero_shot.{name}.source")


def check_scorer(config: ConfigDict, domain: str, scorer: ConfigDict) -> None:
    """Raise ValueError for a row `judge.row` that cannot score samples of this kind."""
    kind, fits = SCORERS.get(domain, ("", lambda scorer: True))
    if not fits(scorer):
        raise ValueError(f"judge.row: {config.judge.row!r} is not {kind}; name a row that is")


def check_planner(config: ConfigDict, planner: ConfigDict) -> None:
    """Raise ValueError for a row `sample.remask.planner_row` that cannot score the tokens of samples."""
    field, name = "sample.remask.planner_row", config.sample.remask.planner_row
    data = [{key: value for key, value in each.data.items() if key != "cache_dir"} for each in (config, planner)]
    if family_of(planner) is not masked or planner.codec.digits > 1:
        raise ValueError(f"{field}: {name!r} is not a masked denoiser of whole tokens; name a row that is")
    if data[0] != data[1] or planner.model.labels not in (0, config.model.labels):
        raise ValueError(f"{field}: {name!r} has other data or classes; name a row with those of the samples")
