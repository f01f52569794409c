"""The encoder-decoder's calls, with sources or without."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from diffusion.data.sources import PAIRS
from experiments.families.base import System


def has_sources(config: ConfigDict) -> bool:
    """Whether the data are pairs; on text the model is unconditional and reads the mask for a source."""
    return config.data.source in PAIRS


def network_call(system: System, name: str) -> Callable[..., Any]:
    """A call of the network by its name, with parameters first: encode, next_logits, step, ..."""

    def call(params, *inputs, **options):
        return system.net.apply({"params": params}, *inputs, method=name, **options)

    return call
