"""Sampling of sequence-to-sequence models: the sampler of a config, from sources to candidates."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from diffusion.categorical import exclude
from diffusion.objectives.autoregressive import shift_right
from diffusion.objectives.embedding import cross_entropy, null_source
from diffusion.sampling.gaussian import solvers
from diffusion.sampling.gaussian.guides import keep
from diffusion.sampling.gaussian.solvers import GaussianGrid
from diffusion.sampling.masked.sampler import Samples
from diffusion.sampling.sequences import lengths
from diffusion.sampling.sequences.beam import BeamSearch
from diffusion.sampling.sequences.embedding import TIME_GRIDS, EmbeddingSampler, StepStatistics, scale_noise
from diffusion.schedules.gaussian import BetaChain
from diffusion.types import Keys, Params, SequenceCondition, Tokens
from experiments.families.base import System, lookup
from experiments.families.pair_network import network_call

SOLVERS: dict[str, Callable[[float], solvers.Solver]] = {
    "ddim": lambda factor: solvers.ddim(0.0),
    "ancestral": lambda factor: scale_noise(solvers.ddim(1.0), factor),
}


class Candidates(NamedTuple):
    """Tokens of every candidate of every source, the best guess of a length first where nothing re-ranks them."""

    tokens: Int[Array | np.ndarray, "B C L"]
    target: Bool[Array | np.ndarray, "B C L"]  # positions that are generated
    steps: StepStatistics | None


class Translator(NamedTuple):
    """`translate(params, keys [B], source [B, S], its mask)`.

    `evaluations` are the network's calls one after the other.
    """

    translate: Callable[[Params, Keys, Tokens, Bool[Array, "B S"]], Candidates]
    candidates: int
    evaluations: int


def translator(config: ConfigDict, system: System, diagnose: bool = False) -> Translator:
    """The sampler of a config; with `diagnose` its candidates come with what every step looked like.

    Raises:
      ValueError: for names and numbers that no sampler can work with.
    """
    causal = config.encoder_decoder.kind == "causal"
    return beam_search(config, system) if causal else embedding_sampler(config, system, diagnose)


def longest(config: ConfigDict) -> int:
    """Positions of a target."""
    return config.sample.length or config.data.length


def beam_search(config: ConfigDict, system: System) -> Translator:
    """Beam search of the autoregressive model, which keeps the best hypothesis alone."""
    options, length, vocabulary = config.sample.translation, longest(config), system.embedding.vocabulary
    search = BeamSearch(
        network_call(system, "step"),
        system.net.init_cache,
        vocabulary,
        start_id=vocabulary,
        eos_id=system.end,
        pad_id=vocabulary + 1,
        beam=options.beam,
        penalty=options.penalty,
    )
    encode = network_call(system, "encode")

    def translate(params, keys, source, mask):
        tokens, _ = search(params, encode(params, source, mask), length)
        return Candidates(tokens[:, None], jnp.ones((len(tokens), 1, length), bool), None)

    return Translator(translate, 1, length)


def embedding_sampler(config: ConfigDict, system: System, diagnose: bool) -> Translator:
    """K calls from noise to tokens, for every length and every noise of a sentence."""
    options, length, filled = config.sample.translation, longest(config), config.embedding.fill
    check_counts(config)
    sampler, grid = steps_of(config, system)
    sampler = replace(sampler, diagnose=diagnose)
    encode = network_call(system, "encode")

    def translate(params, keys, source, mask):
        encoded = encode(params, source, mask)
        target_lengths = (
            jnp.full((len(source), 1), length) if filled else lengths.around(encoded, options.length_beam, length)
        )
        many, condition = lengths.candidates(keys, encoded, target_lengths, options.seeds, length)
        translations = sampler(params, many, condition, grid, options.factor)
        shape = (len(source), -1, length)
        return Candidates(translations.tokens.reshape(shape), condition.target.reshape(shape), translations.steps)

    evaluations = evaluations_per_candidate(config)
    return Translator(translate, options.seeds * options.length_beam, evaluations)


def steps_of(config: ConfigDict, system: System) -> tuple[EmbeddingSampler, GaussianGrid]:
    """The sampler of one candidate, and its grid; raises ValueError for names that do not fit."""
    options, schedule = config.sample.translation, system.diffusing.schedule
    times = lookup(TIME_GRIDS, options.path, "sample.translation.path")
    if options.path == "spaced" and not isinstance(schedule, BetaChain):
        raise ValueError("sample.translation.path: spaced is for schedules that are chains; set it to even")
    solver = lookup(SOLVERS, options.solver, "sample.translation.solver")(options.factor)
    pad_id = system.embedding.vocabulary + 1
    sampler = EmbeddingSampler(system.denoiser, system.embedding, pad_id, options.memory, options.clamp)
    return sampler, solvers.gaussian_grid(times(schedule, config.sample.steps), solver)


def evaluations_per_candidate(config: ConfigDict) -> int:
    """Of the network, one after the other, for one candidate."""
    return config.sample.steps * (2 if config.sample.translation.memory == "recompute" else 1)


def text_sampler(config: ConfigDict, system: System) -> Callable[..., Samples]:
    """`sample(params, keys, prompt, label=None)` of text by embedding diffusion without a source.

    Tokens of the prompt [B, L] that are no masks are kept: their embeddings are put into every clean estimate.

    Raises:
      ValueError: for names that do not fit, and for windows of another length than data.length.
    """
    options, null_id = config.sample, system.embedding.vocabulary
    if options.policy != "embedding":
        raise ValueError(
            f"sample.policy: {options.policy} is for masked tokens; encoder_decoder samples with policy=embedding"
        )
    if longest(config) != config.data.length:
        raise ValueError(f"sample.length: embedding diffusion writes data.length = {config.data.length} tokens")
    sampler, grid = steps_of(config, system)
    encode = network_call(system, "encode")

    def sample(params, keys, prompt, label=None):
        fixed, size = prompt != null_id, len(prompt)
        known = system.embedding.encode(params, jnp.where(fixed, prompt, 0))
        condition = SequenceCondition(encode(params, *null_source(size, null_id)), jnp.ones(prompt.shape, bool))
        keeping = replace(sampler, guides=(keep(known, fixed[..., None]),))
        texts = keeping(params, keys, condition, grid, options.translation.factor)
        none = jnp.zeros(size, jnp.int32)
        return Samples(
            jnp.where(fixed, prompt, texts.tokens), jnp.full(size, evaluations_per_candidate(config)), none, none, none
        )

    return sample


def check_counts(config: ConfigDict) -> None:
    """Raise ValueError for lengths and numbers of candidates that do not fit."""
    options = config.sample.translation
    if config.embedding.fill and options.length_beam > 1:
        raise ValueError("sample.translation.length_beam: with embedding.fill targets have one length; set it to 1")
    if not config.embedding.fill and not config.encoder_decoder.length_classes:
        raise ValueError("encoder_decoder.length_classes: 0 is no length head; set it, or embedding.fill=True")


def mean_log_likelihood(system: System) -> Callable[..., Float[Array, " B"]]:
    """(params, source, its mask, tokens, weights) -> log p(target | source) / tokens of a causal system, in nats."""
    encode, next_logits, vocabulary = (
        network_call(system, "encode"),
        network_call(system, "next_logits"),
        system.embedding.vocabulary,
    )

    def score(params, source, mask, tokens, weights):
        logits = next_logits(params, shift_right(tokens, vocabulary), encode(params, source, mask))
        nats = cross_entropy(exclude(logits, vocabulary), tokens, vocabulary, 0.0)
        return -jnp.sum(nats * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1)

    return score
