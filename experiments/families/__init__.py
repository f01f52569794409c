"""Configs to objects: each family says how a config of one kind of model becomes objects.

`family_of` alone reads which kind of model a config describes; everything else asks the family.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from ml_collections import ConfigDict

from diffusion.likelihood.estimators import Estimate
from diffusion.nets.attention import choose
from experiments.families import (
    blocks,
    causal,
    classifier,
    exact,
    masked,
    masked_sampling,
    prompted_diffusion,
    scorer,
    seq2seq,
    text_to_image,
    uniform,
    uniform_sampling,
)
from experiments.families.base import Call, System, lookup
from experiments.families.networks import NETWORKS
from experiments.families.training import optimizer, settings

__all__ = [
    "FAMILIES",
    "Call",
    "Family",
    "System",
    "attention",
    "check_domain",
    "draws_images",
    "estimate",
    "estimators",
    "family_of",
    "is_reward",
    "objective",
    "optimizer",
    "sampler",
    "settings",
    "system",
    "traced_sampler",
]


@runtime_checkable
class Family(Protocol):
    """What a module of this package defines for its kind of model."""

    @property
    def TRAINED(self) -> bool:
        """Whether it is trained; exact models are not."""
        ...

    @property
    def CAUSAL(self) -> bool:
        """Whether it writes tokens from left to right."""
        ...

    @property
    def REWARDED(self) -> bool:
        """Whether its samples are drawn and measured with a row of the table as reward."""
        ...

    @property
    def MEASURED_BY(self) -> str:
        """The measure of `evaluate`: likelihood, ranking, accuracy or samples."""
        ...

    @property
    def DOMAINS(self) -> tuple[str, ...]:
        """Kinds of data that it reads."""
        ...

    @property
    def OBJECTIVES(self) -> Mapping[str, Callable[[ConfigDict, System], Callable]]:
        """Objectives that train it, by name."""
        ...

    def system(self, config: ConfigDict, vocabulary: int) -> System:
        """The network and its process."""
        ...

    def estimators(self, config: ConfigDict) -> list[str]:
        """Names of the estimators that `evaluate` runs."""
        ...

    def estimate(self, config: ConfigDict, system: System, name: str) -> Estimate:
        """The estimator of a name."""
        ...

    def sampler(self, config: ConfigDict, system: System) -> Callable[..., Any]:
        """`sample(params, keys, prompt, label=None)` of sequences."""
        ...

    def batch(self, config: ConfigDict) -> dict:
        """Shapes of one training batch."""
        ...

    def calls(self, config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
        """The programs of its sampler, by shapes; `helper` is another row's network that takes part, if any."""
        ...


FAMILIES: dict[str, Family] = {
    "dit": masked,
    "unet": masked,
    "mlp": masked,
    "classifier": classifier,
    "captioned_unet": prompted_diffusion,
    "reward": scorer,
    "text_to_image": text_to_image,
    "encoder_decoder": seq2seq,
    "picture_oracle": exact,
    "mixture_oracle": exact,
}
# By `process.name`, families of the networks over tokens.
PROCESSES: dict[str, Family] = {"masked": masked, "uniform": uniform, "blocks": blocks}
# Objectives that read logits of tokens, or draw tokens from them.
IN_PIECES = ("nelbo", "nelbo_reveal", "autoregressive", "cross_entropy", "errors", "embedding", "next_target")


def family_of(config: ConfigDict) -> Family:
    """The family of a config's model; raises ValueError for an unknown network or process."""
    family = lookup(FAMILIES, config.model.net, "model.net")
    process = lookup(PROCESSES, config.process.name, "process.name")
    if family is masked:
        return causal if config.model.causal else process
    if process is not masked:
        raise ValueError(f"process.name: {config.process.name} does not go with model.net={config.model.net}")
    return family


def is_reward(config: ConfigDict) -> bool:
    """Whether the model is a reward of images."""
    return family_of(config) is scorer


def draws_images(config: ConfigDict) -> bool:
    """Whether the model draws images from prompts by Gaussian diffusion."""
    return config.model.net in ("captioned_unet", "picture_oracle")


def check_domain(config: ConfigDict, domain: str) -> None:
    """Raise ValueError for data that the network cannot read."""
    if domain not in family_of(config).DOMAINS:
        fitting = sorted(name for name, family in FAMILIES.items() if domain in family.DOMAINS)
        raise ValueError(
            f"model.net: {config.model.net} does not read data.source={config.data.source} ({domain}); use "
            f"{' or '.join(fitting)}, or data of {', '.join(family_of(config).DOMAINS)}"
        )


def attention(config: ConfigDict) -> str:
    """The attention kernel by name, where all layers attend over the same length."""
    name, _, platform = config.model.attention.partition(":")
    if name != "auto" or NETWORKS.get(config.model.net) is not NETWORKS["dit"]:
        return config.model.attention
    passes = 2 if family_of(config) is blocks else 1  # block diffusion reads noisy and clean tokens together
    positions = config.codec.digits if config.model.causal else 1  # per token
    return choose(platform, config.model.dtype, passes * positions * config.data.length)


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network of a config over `vocabulary` tokens, with its process."""
    return family_of(config).system(config, vocabulary)


def objective(config: ConfigDict, system: System) -> Callable:
    """The training objective; raises ValueError for one that does not train the network."""
    family, name = family_of(config), config.objective.name
    known = {name: each for each in (*FAMILIES.values(), *PROCESSES.values(), causal) for name in each.OBJECTIVES}
    lookup(known, name, "objective.name")
    if (name == "autoregressive") != config.model.causal:
        raise ValueError("objective.name: autoregressive goes with model.causal=True, and nothing else does")
    if not family.TRAINED:
        raise ValueError(f"model.net: {config.model.net} is an exact model, which is not trained")
    if name not in family.OBJECTIVES:
        raise ValueError(
            f"objective.name: {name} does not train model.net={config.model.net}; use {' or '.join(family.OBJECTIVES)}"
        )
    if config.objective.pieces and name not in IN_PIECES:
        raise ValueError(f"objective.pieces: {name} reads no logits of tokens; set it to 0")
    return family.OBJECTIVES[name](config, system)


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first the one that feeds the table's plain columns."""
    return family_of(config).estimators(config)


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """The estimator of one of those names."""
    return family_of(config).estimate(config, system, name)


def traced_sampler(config: ConfigDict, system: System, trace: int) -> Callable[..., Any]:
    """The sampler of one window of tokens that also returns the states of the first `trace` examples."""
    make = uniform_sampling.sampler if family_of(config) is uniform else masked_sampling.masked_sampler
    return make(config, system, trace)


def sampler(config: ConfigDict, system: System) -> Callable[..., Any]:
    """`sample(params, keys, prompt, label=None)` for prompts [B, sample.length or data.length]."""
    return family_of(config).sampler(config, system)
