"""Samples of every policy on tokens and on sub-tokens: 8 short texts per setting, with a prompt of a few tokens.

The networks are the smallest ones, with random weights under which logits depend on tokens.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import remdm, scmdm_genomes
from configs.recipes.gstar import GUIDED, PLAIN
from experiments import families
from experiments.families.masked_sampling import POLICIES, RULES
from tests.golden.programs import computed, debug, keys, letters
from tests.weights import randomized

SIZE, VOCABULARY = 8, 27
SMALL = {"data.vocab_size": VOCABULARY, "data.length": 8, "model.blocks": 1, "model.hidden": 16, "model.cond_dim": 8}
MLP = {"model.net": "mlp"}
CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}
ERRORS = {"objective.name": "errors", "predictor.kind": "head"}
MEMORY = {"memory.adapter": "linear"}
DIGITS = {"codec.digits": 3, "codec.shuffle": 1} | MLP
NUCLEUS = {"sample.nucleus": 0.6, "sample.nucleus_rule": "inclusive"}
TIMED = {"model.time_conditioning": True} | MLP
# PLAIN has two settings of each of these policies, which differ in one number only.
TWICE = ("ReMDM-cap", "ReMDM-loop exact, eta 0.05")

SAMPLERS = {
    **{name: MLP | overrides for name, overrides in PLAIN.items() if name not in TWICE},
    "random order": MLP | {"sample.policy": "random_order"},
    "confidence, greedy": MLP | {"sample.policy": "confidence"},
    "first hitting": TIMED | {"sample.policy": "first_hitting"},
    "ancestral, time-conditioned": TIMED,
    "P2, eta 0": MLP | {"sample.policy": "p2", "sample.remask.eta": 0.0},
    "cosine schedule, warped times": MLP | {"process.schedule": "cosine", "sample.warp": (0.9, 2.0, 0.0)},
    "temperature ramp": MLP | {"sample.temperature": 0.5, "sample.temperature_ramp": (0.5, 2.0)},
    "nucleus, inclusive": MLP | NUCLEUS,
    "nucleus, standard": MLP | {"sample.nucleus": 0.6, "sample.nucleus_rule": "standard"},
    "low precision": MLP | {"sample.precision": "mdlm_float32"} | NUCLEUS,
    "low precision, Star+": MLP | PLAIN["Star+"] | {"sample.precision": "mdlm_float32"},
    "corrector": MLP | {"sample.corrector": (2.0, 0.5)},
    "final argmax": MLP | {"sample.final": "argmax", "sample.end": 0.5},
    "final none": MLP | {"sample.final": "none", "sample.end": 0.5},
    "windows": MLP | {"sample.length": 16},
    "windows of stride 2": MLP | {"sample.length": 12, "sample.stride": 2} | PLAIN["ReMDM-cap, eta 0.04"],
    "transformer": {},
    **{name: ERRORS | overrides for name, overrides in GUIDED.items()},
    "G-Star-loop, adaptive": ERRORS | GUIDED["G-Star-loop"] | {"sample.remask.adaptive": True},
    "G-Star-loop, temperature 0": ERRORS | GUIDED["G-Star-loop"] | {"sample.remask.temperature": 0.0},
    "memory": MEMORY,
    "memory, not read": MEMORY | {"sample.memory": "null"},
    "memory, Star-loop": MEMORY | PLAIN["Star-loop"],
    "memory, G-Star-loop": MEMORY | ERRORS | GUIDED["G-Star-loop"],
    "autoregressive": CAUSAL,
    "autoregressive, nucleus": CAUSAL
    | {"sample.nucleus": 0.6, "sample.nucleus_rule": "standard", "sample.temperature": 0.7},
    "autoregressive, low precision": CAUSAL | {"sample.precision": "mdlm_float32"},
    "digits": DIGITS,
    "digits, marginal draws": DIGITS | {"sample.digits_draw": "marginal"},
    "digits, no carry-over": DIGITS | {"codec.carry_over": False},
    "digits, first hitting": DIGITS | {"sample.policy": "first_hitting"},
    "digits, codes without a token": DIGITS
    | {"codec.digits": 2, "codec.carry_over": False, "sample.digits_draw": "marginal", "sample.steps": 2},
    "digits, nucleus": DIGITS | NUCLEUS,
    "digits, corrector": DIGITS | {"sample.corrector": (2.0, 0.5)},
    "digits, ReMDM-loop": DIGITS | PLAIN["ReMDM-loop exact"],
    "digits, Star+": DIGITS | PLAIN["Star+"],
    "digits, P2": DIGITS | PLAIN["P2"],
    "digits, windows": DIGITS | {"sample.length": 16},
    "digits, G-Star-loop": ERRORS | GUIDED["G-Star-loop"] | {"codec.digits": 2},
    "digits, memory": MEMORY | {"codec.digits": 2},
}
LABELS = "labels"


def config_of(name):
    if name == LABELS:
        return debug(scmdm_genomes, SMALL | {"data.vocab_size": 8})
    return debug(remdm, SMALL | SAMPLERS[name])


@pytest.mark.parametrize("name", [*SAMPLERS, LABELS])
def test_samples_of_masked_diffusion(golden, name):
    config = config_of(name)
    system = families.system(config, config.data.vocab_size)
    prompt = np.full((SIZE, config.sample.length or config.data.length), config.data.vocab_size, np.int32)
    prompt[::2, 0], prompt[1, 5] = 3, 4
    # A transformer with larger weights writes only one token.
    scale = 0.5 if config.model.net == "mlp" else 0.25
    inputs = randomized(system.init, scale), keys(SIZE), prompt
    if name == LABELS:
        inputs += (jnp.arange(SIZE) % config.model.labels,)
    samples = computed(families.sampler(config, system), *inputs)
    assert (samples.tokens[::2, 0] == 3).all() and samples.tokens[1, 5] == 4, "the prompt is kept"
    counts = {
        field: np.asarray(counted).tolist()
        for field, counted in samples._asdict().items()
        if field not in ("tokens", "trace")
    }
    golden(name, {"tokens": letters(samples.tokens)} | counts)


def test_every_policy_and_rule_is_recorded(golden):
    golden.complete([*SAMPLERS, LABELS])
    configs = [config_of(name) for name in SAMPLERS]
    assert {config.sample.policy for config in configs} == set(POLICIES)
    assert {config.sample.remask.rule for config in configs} == set(RULES)
