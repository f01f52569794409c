"""The optimizer and the training loop's settings of a config."""

import optax
from ml_collections import ConfigDict

from diffusion.train.loop import Settings
from diffusion.train.optimizer import adamw
from diffusion.types import Params


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """AdamW; of a network with an error predictor it moves the predictor alone."""
    fields = config.optimizer.to_dict()
    whole = adamw(peak=fields.pop("learning_rate"), steps=config.train.steps, **fields)
    if config.objective.name != "errors":
        return whole

    def moved(params: Params) -> dict[str, bool]:
        return {part: part == "errors" for part in params}

    return optax.masked(whole, moved)


def settings(config: ConfigDict) -> Settings:
    """The settings of the training loop."""
    return Settings(**{name: value for name, value in config.train.items() if name != "evaluate_batches"})
