"""The config of a transformer with one block of width 16."""

from configs.base import defaults
from configs.recipes.small import tiny
from experiments.plan import resolve


def small_config(**overrides):
    """Return the config with overrides, such as sample__steps=3 for sample.steps."""
    config = tiny(defaults("test", "debug"))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    return resolve(config, {name.replace("__", "."): value for name, value in overrides.items()}, 0)
