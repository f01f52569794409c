"""The processes that the oracle tool knows: their estimators, and the denoiser under which a bound is smallest."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.likelihood import blocks, estimators, uniform
from diffusion.likelihood.estimators import Estimate
from diffusion.oracles.blocks import by_blocks
from diffusion.oracles.enumerable import Enumerable
from diffusion.oracles.markov import Markov
from diffusion.oracles.subtokens import subtoken_denoiser, subtoken_language
from diffusion.oracles.uniform import uniform_posterior
from diffusion.processes.blocks import BlockDiffusion
from diffusion.processes.masking import MaskedDiffusion
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.processes.uniform import UniformDiffusion
from diffusion.schedules.masking import LogLinear
from diffusion.types import Denoise, MaskedProcess

# The distributions of token sequences with a known entropy and known conditional probabilities.
Language = Enumerable | Markov


@dataclass(frozen=True)
class KnownProcess:
    """A process that the tool can judge.

    `types` are its classes, `make(vocabulary, length, digits)` builds one, and `estimator` looks up its estimators by
    name. `exact(language, process)` is its exact denoiser, and `of_states(denoise, process)` turns a function of one
    sequence of positions into one of the states that the process's networks read.
    """

    types: tuple[type, ...]
    make: Callable[[int, int, int], Any]
    estimator: Callable[[str], Estimate]
    exact: Callable[[Any, Any], Denoise]
    of_states: Callable[[Denoise, Any], Denoise] = lambda denoise, process: denoise
    digits: bool = False  # whether tokens may have several sub-tokens
    shape: tuple[int, int] = (4, 3)  # vocabulary and length of the enumerable language


def masked_process(vocabulary: int, length: int, digits: int) -> MaskedDiffusion | PartialMaskedDiffusion:
    """Masked diffusion of tokens, or of sub-tokens in a base with codes of no token."""
    if digits == 1:
        return MaskedDiffusion(vocabulary, LogLinear())
    return PartialMaskedDiffusion(SubtokenCodec(vocabulary, digits), LogLinear())


def masked_denoiser(language: Language, process: MaskedDiffusion | PartialMaskedDiffusion) -> Denoise:
    """The posterior given the unmasked positions.

    Raises:
      ValueError: for a process of sub-tokens on a language that is not enumerable.
    """
    if isinstance(process, MaskedDiffusion):
        return language.denoise
    if not isinstance(language, Enumerable):
        raise ValueError("digits: the exact posterior given sub-tokens is known for enumerable languages only")
    return subtoken_denoiser(language, process.codec)


def next_symbol(language: Language, process: MaskedProcess) -> Denoise:
    """The exact causal network: log p of a token, or sub-token, given those before it."""
    if isinstance(process, PartialMaskedDiffusion) and isinstance(language, Enumerable):
        language = subtoken_language(language, process.codec)
    return language.next_token


PROCESSES = {
    "masked": KnownProcess(
        (MaskedDiffusion, PartialMaskedDiffusion), masked_process, estimators.estimator, masked_denoiser, digits=True
    ),
    "blocks": KnownProcess(
        (BlockDiffusion,),
        lambda vocabulary, length, digits: BlockDiffusion(vocabulary, LogLinear(), isqrt(length)),
        blocks.estimator,
        lambda language, process: by_blocks(language.denoise, process),
        by_blocks,
        shape=(3, 4),
    ),
    "uniform": KnownProcess(
        (UniformDiffusion,),
        lambda vocabulary, length, digits: UniformDiffusion(vocabulary, LogLinear()),
        uniform.estimator,
        uniform_posterior,
    ),
}


def known_process(process: Any) -> KnownProcess:
    """The entry of a process; raises ValueError for one that the tool does not know."""
    for known in PROCESSES.values():
        if type(process) in known.types:
            return known
    raise ValueError(
        f"process: no exact denoiser is known for {type(process).__name__}; add it to oracles/processes.py"
    )
