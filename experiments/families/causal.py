"""Autoregressive models of tokens, the baseline of the masked ones: the same transformer with a causal mask."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.likelihood.estimators import Estimate, nll_autoregressive
from diffusion.objectives.autoregressive import NextToken
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.sequences.autoregressive import AutoregressiveSampler
from experiments.families import masked
from experiments.families.base import Call, System, keys_like, rows_like

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, True, False, "likelihood"
DOMAINS = masked.DOMAINS
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "autoregressive": lambda config, system: NextToken(system.denoiser, system.masking.mask_id, given_first(config)),
}
system = masked.system
batch = masked.batch


def given_first(config: ConfigDict) -> bool:
    """Whether the network starts from the first token of a window, which is then not predicted."""
    return config.model.start == "window"


def estimate(config: ConfigDict, system: System, name: str) -> Estimate:
    """The exact likelihood of the tokens that the network predicts."""
    return (
        partial(nll_autoregressive, given_first=True) if given_first(config) else masked.estimate(config, system, name)
    )


def estimators(config: ConfigDict) -> list[str]:
    """Names of the estimators to run, first the exact likelihood; raises ValueError for one that does not fit."""
    return masked.named_estimators(config, "nll_autoregressive")


def sampler(config: ConfigDict, system: System) -> Callable:
    """`sample(params, keys, prompt, label=None)`, left to right with a cache of keys and values."""
    options, length = config.sample, config.data.length
    if (options.length or length) != length:
        raise ValueError(f"sample.length: an autoregressive model writes data.length = {length} tokens")
    mask_id = system.masking.mask_id
    sample = AutoregressiveSampler(
        lambda size: system.net.init_cache(size, length),
        lambda params, *inputs: system.net.apply({"params": params}, *inputs, method="decode"),
        Draw(mask_id, options.precision, options.nucleus_rule),
        mask_id,
        given_first(config),
    )
    return lambda params, keys, prompt, label=None: sample(params, keys, prompt, options.temperature, options.nucleus)


def calls(config: ConfigDict, system: System, reward: System | None = None) -> list[Call]:
    """The sampler of one batch, one evaluation per token on one position."""
    size, length = config.sample.batch, config.sample.length or config.data.length
    turns = length - given_first(config)
    call = Call(
        name=f"sampler, {turns} evaluations",
        function=sampler(config, system),
        params=(system.init,),
        rows=(keys_like(size), rows_like(size, length, dtype=jnp.int32)),
        turns=turns,
    )
    return [call]
