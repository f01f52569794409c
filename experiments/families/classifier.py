"""Classifiers of images by their labels, whose features judge samples."""

from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.likelihood.estimators import Estimate
from diffusion.objectives.supervised import Classification
from experiments.families import masked
from experiments.families.base import Call, System, rows_like

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, False, False, "accuracy"
DOMAINS = ("image",)
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "classification": lambda config, system: Classification(system.denoiser),
}
system = masked.denoising_system


def estimators(config: ConfigDict) -> list[str]:
    """A classifier has no likelihood of images: raises ValueError."""
    raise ValueError("model.net: a classifier has no likelihood; its accuracy is measured while it trains")


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """As `estimators`."""
    raise ValueError("model.net: a classifier has no likelihood")


def batch(config: ConfigDict) -> dict:
    """Shapes of one training batch."""
    return masked.batch(config) | {"label": rows_like(config.train.batch, dtype=jnp.int32)}


def sampler(config: ConfigDict, system: System) -> Callable:
    """A classifier draws nothing: raises ValueError."""
    raise ValueError("model.net: a classifier draws no samples; name a row with a generative model")


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """None: a classifier is trained alone."""
    return []
