"""Translations and texts by embedding diffusion and by beam search, for 8 sources and random weights."""

from dataclasses import replace

import numpy as np
import pytest

from configs import fastdiss_text, fastdiss_translation
from experiments import families
from experiments.families.translation import SOLVERS, TIME_GRIDS, translator
from tests.golden.programs import computed, debug, keys, letters, sensitive_params, summary

SIZE, VOCABULARY = 8, 24
CAUSAL = {"encoder_decoder.kind": "causal", "objective.name": "next_target"}
JOINT = {"encoder_decoder.kind": "joint", "embedding.fill": True, "embedding.memory_rate": 0.0}
SPACED = {"process.schedule": "sqrt_chain", "sample.translation.path": "spaced"}


def options(**fields):
    """Return overrides of `sample.translation`."""
    return {f"sample.translation.{name}": value for name, value in fields.items()}


SAMPLERS = {
    "lengths around": {},
    "three lengths, two noises": options(length_beam=3, seeds=2),
    "memory recomputed": options(memory="recompute"),
    "no memory": options(memory="none"),
    "ancestral": options(solver="ancestral", factor=0.5),
    "clamped": options(clamp=True),
    "spaced": SPACED,
    "CEDI": options(path="cedi"),
    "DINOISER": {"encoder_decoder.form": "dinoiser", "encoder_decoder.scale": "scaled"}
    | {"encoder_decoder.norm_first": False, "encoder_decoder.activation": "relu"},
    "one sequence": JOINT | options(memory="none"),
    "beam search": CAUSAL,
    "greedy": CAUSAL | options(beam=1),
    "beam search, no penalty": CAUSAL | options(beam=3, penalty=0.0),
}
TEXTS = {"text": {}, "text, ancestral": options(solver="ancestral"), "text, clamped": options(clamp=True)}


def config_of(name):
    return debug(fastdiss_translation, {"data.vocab_size": VOCABULARY, "sample.steps": 4} | SAMPLERS[name])


@pytest.mark.parametrize("name", SAMPLERS)
def test_translations(golden, name):
    config = config_of(name)
    system = replace(families.system(config, VOCABULARY), end=1)
    rng = np.random.default_rng(0)
    source = rng.integers(2, VOCABULARY, (SIZE, config.data.source_length)).astype(np.int32)
    rng.integers(3, config.data.length + 1, SIZE)  # not used; the masks of the record are drawn after these numbers
    mask = np.arange(config.data.source_length)[None] < rng.integers(4, 10, (SIZE, 1))
    model = translator(config, system, diagnose=True)
    inputs = sensitive_params(system.init), keys(SIZE), source, mask
    candidates = computed(model.translate, *inputs)
    value = {
        "tokens": letters(candidates.tokens.reshape(-1, candidates.tokens.shape[-1])),
        "lengths": np.asarray(candidates.target.sum(axis=-1)).tolist(),
        "cost": [*model[1:]],
    }
    if candidates.steps is not None:
        value |= {"confidence": summary(candidates.steps.confidence), "error": summary(candidates.steps.error)}
    golden(name, value)


@pytest.mark.parametrize("name", TEXTS)
def test_texts(golden, name):
    small = {"data.vocab_size": VOCABULARY, "data.length": 8, "encoder_decoder.positions": 8, "sample.steps": 4}
    config = debug(fastdiss_text, small | TEXTS[name], "standard, 2 steps")
    system = families.system(config, VOCABULARY)
    prompt = np.full((SIZE, config.data.length), VOCABULARY, np.int32)
    prompt[::2, 0], prompt[1, 5] = 3, 4
    samples = computed(families.sampler(config, system), sensitive_params(system.init, 0.1, 1), keys(SIZE), prompt)
    golden(name, {"tokens": letters(samples.tokens), "evaluations": np.asarray(samples.evaluations).tolist()})


def test_every_choice_is_recorded(golden):
    golden.complete([*SAMPLERS, *TEXTS])
    configs = [config_of(name).sample.translation for name in SAMPLERS]
    assert {config.path for config in configs} == set(TIME_GRIDS)
    assert {config.solver for config in configs} == set(SOLVERS)
