"""A table of one training, one evaluation and one row of samples, which runs in seconds."""

from configs.base import defaults
from configs.recipes.small import tiny
from configs.recipes.table import columns, evaluated, sampled

TABLE = dict(
    title="A table for faults",
    columns=columns("bits_per_byte", "entropy"),
    published={},
    plots=(),
    notes="",
)


def get_config(variant: str = "debug"):
    config = defaults("faults", variant)
    tiny(config)
    config.data.update(source="text_files", document="line")
    config.train.update(steps=24, log_every=3, evaluate_every=12, checkpoint_every=3)
    config.judge.name = "none"
    return config


def rows(config):
    yield evaluated("MDLM")
    yield sampled("MDLM, 4 steps", {}, 4)
