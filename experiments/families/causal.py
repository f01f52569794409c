"""Autoregressive models of tokens, or of their sub-tokens: the transformer of the masked models with a causal mask."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion.codecs.subtoken_prefixes import prefixes, restrict
from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood.estimators import Estimate, nll_autoregressive
from diffusion.objectives.autoregressive import NextToken
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.readout import Readout, RowLogits, Rows, readout
from diffusion.sampling.masked.draw import Draw
from diffusion.sampling.masked.subtokens import sample_tokens
from diffusion.sampling.sequences.autoregressive import AutoregressiveSampler, of_codes
from diffusion.types import Denoiser
from experiments.families import masked
from experiments.families.base import Call, System, keys_like, rows_like

TRAINED, CAUSAL, REWARDED, MEASURED_BY = True, True, False, "likelihood"
DOMAINS = masked.DOMAINS
OBJECTIVES: dict[str, Callable[[ConfigDict, System], Callable]] = {
    "autoregressive": lambda config, system: NextToken(system.denoiser, system.masking, given_first(config)),
}
batch = masked.batch


def system(config: ConfigDict, vocabulary: int) -> System:
    """The network, which reads one token or sub-token a position.

    With `codec.carry_over` sub-tokens that lead to no token have probability 0 in training, likelihood and sampling, so
    that the likelihoods of all sequences of tokens sum to 1. Without it codes of no token keep the mass that the
    network gives them, and samples may have them.
    """
    base = masked.system(config, vocabulary)
    process = base.masking
    if not (isinstance(process, PartialMaskedDiffusion) and process.carry_over):
        return base
    return replace(base, denoiser=CodeDenoiser(base.denoiser, process.codec))


@dataclass(frozen=True)
class CodeDenoiser:
    """A denoiser of sub-tokens, left to right, of which those that lead to no token have probability 0."""

    denoiser: Denoiser
    codec: SubtokenCodec

    def __call__(self, params, noisy, time, cond=None, memory=None, *, keys=None) -> Any:
        return self.readout(params, noisy, time, cond, memory, keys=keys).logits()

    def readout(self, params, noisy, time, cond=None, memory=None, *, keys=None) -> Readout:
        """Evaluate the denoiser; see `ReadableDenoiser`."""
        evaluation = readout(self.denoiser, params, noisy, time, cond, memory, keys=keys)
        prefix = prefixes(self.codec, noisy)

        def at(rows: Rows) -> RowLogits:
            return restrict(self.codec, evaluation.at(rows), rows.take(prefix)[:, None])

        return evaluation._replace(at=at)


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
    """`sample(params, keys, prompt, label=None)`, left to right with a cache of keys and values.

    Temperature and nucleus act on each symbol that is written: a token, or a sub-token.
    """
    options, most, process = config.sample, config.data.length, system.masking
    length = options.length or most
    if length > most:
        raise ValueError(f"sample.length: an autoregressive model writes data.length = {most} tokens or less")

    def init_cache(size):
        return system.net.init_cache(size, length * process.subtokens)

    def decode(params, *inputs):
        return system.net.apply({"params": params}, *inputs, method="decode")

    network = init_cache, decode
    if isinstance(process, PartialMaskedDiffusion) and process.carry_over:
        network = of_codes(process.codec, *network)
    draw = Draw(process.mask_id, options.precision, options.nucleus_rule)
    write = AutoregressiveSampler(*network, draw, process.mask_id, given_first(config))

    def symbols(params, keys, prompt, cond=None):
        return write(params, keys, prompt, options.temperature, options.nucleus)

    return partial(sample_tokens, symbols, process) if isinstance(process, PartialMaskedDiffusion) else symbols


def calls(config: ConfigDict, system: System, helper: System | None = None) -> list[Call]:
    """The sampler of one batch, one evaluation per token, or sub-token, on one position."""
    size, length = config.sample.batch, config.sample.length or config.data.length
    turns = length * system.masking.subtokens - given_first(config)
    call = Call(
        name=f"sampler, {turns} evaluations",
        function=sampler(config, system),
        params=(system.init,),
        rows=(keys_like(size), rows_like(size, length, dtype=jnp.int32)),
        turns=turns,
    )
    return [call]
