"""SCMDM: rows that are trained further from a base row, with and without their own prediction as input."""

from collections.abc import Iterator
from typing import Any

from configs.recipes.table import TEXT, columns, evaluated, frontier, held_out, quality, sampled
from configs.recipes.text import references

ADAPTER = {"memory.adapter": "linear"}
BASE = "MDLM"
SAME_TOKENS = "MDLM, same tokens"
FULL = "SCMDM, lambda 1"
# Overrides beside those of the base, and training steps relative to those of SCMDM.
MODELS = {
    SAME_TOKENS: ({}, 1.0),
    "MDLM, same FLOPs": ({}, 4 / 3),
    "SCMDM, lambda 0.5": (ADAPTER | {"memory.rate": 0.5}, 1.0),
    "SCMDM, lambda 0.9": (ADAPTER | {"memory.rate": 0.9}, 1.0),
    FULL: (ADAPTER, 1.0),
}
# Bounds of a network with self-conditioning; a plain network has the first one only.
BOUNDS = (
    ("bound_continuous/nats_per_token", "null pass (nats/token)", ".4f"),
    ("bound_continuous_passes_2/nats_per_token", "two passes (nats/token)", ".4f"),
    ("bound_continuous_passes_3/nats_per_token", "three passes (nats/token)", ".4f"),
)
NOTES = (
    "Every row below MDLM starts from that row's averaged weights of the same seed; lambda is the rate at which "
    "training reads the first pass's prediction, and a step at lambda 1 costs 4/3 of a plain one. The null pass is "
    "the network without a self-conditioning input, two and three passes read their own prediction at the same state "
    "and are the likelihoods (upper bounds of them) of samplers that spend as many evaluations per step; the sampler "
    "measured here reuses the step before and spends one. `null memory` samples the SCMDM network without its "
    "self-conditioning input. NFE counts the last fill too. Published figures are second-hand (the paper's body "
    "could not be read); how the prediction enters the network is a choice of ours (a soft embedding through a "
    "matrix that starts at zero, at masked positions alone)."
)


TEXT_COLUMNS = columns(
    ("perplexity", "perplexity (two passes; MDLM: one)", ".2f"),
    *BOUNDS,
    *("evaluations", *TEXT, "mauve", "parse_rate", "seconds_per_sample"),
)
TEXT_PLOTS = (frontier("Better text or sharper text: temperature sweeps at equal evaluations"), quality())
# Text: steps of training after the base.
TEXT_STEPS = {"paper": 6200, "gpu": 600, "local": 400, "debug": 4}
# Text: steps of samplers, and those at which temperatures, low precision and all controls are sampled.
SAMPLING_STEPS = {"paper": (32, 128, 1000), "gpu": (16, 64, 256), "local": (16, 128), "debug": (2, 4)}
SWEEP_STEPS = {"paper": 1000, "gpu": 64, "local": 128, "debug": 4}
TEMPERATURES = {"paper": (0.8, 0.9, 1.1), "gpu": (0.8, 0.9, 1.1), "local": (0.7, 0.8, 0.9, 1.1), "debug": (0.9,)}


def networks(config, steps: int, warmup: int) -> dict[str, dict]:
    """Overrides by name of the base and of all that start from it and are trained for `steps`.

    Training after the base has a short warm-up, which is `warmup` at the published scale, and at small scale a smaller
    learning rate.
    """
    small = {"optimizer.warmup": 30, "optimizer.learning_rate": config.optimizer.learning_rate / 3}
    shared = {"paper": {"optimizer.warmup": warmup}, "gpu": small, "local": small, "debug": {}}[config.variant]
    further = {
        name: {"start": BASE, "train.steps": round(steps * factor)} | shared | overrides
        for name, (overrides, factor) in MODELS.items()
    }
    return {BASE: {}} | further


def bounded(name: str, overrides: dict) -> dict:
    """The row of a model's likelihood, by all bounds that it has."""
    also = ("bound_continuous", "bound_continuous_passes_3") if "memory.adapter" in overrides else ()
    return evaluated(name, overrides | {"evaluate.also": also})


def domain_rows(networks: dict, steps: tuple[int, ...], reference: str):
    """Held-out examples, the bounds of all models, and samples of them at the last of `steps`.

    The base, SCMDM at rate 1 and its control of equal tokens are sampled at every number of steps, and SCMDM without
    its self-conditioning input as well.
    """
    yield held_out(reference, seeds=1)
    for name, overrides in networks.items():
        yield bounded(name, overrides)
    for name, overrides in networks.items():
        for count in steps if name in (BASE, SAME_TOKENS, FULL) else steps[-1:]:
            pictured = count == steps[-1] and name in (BASE, FULL)
            yield sampled(f"{name}, {count} steps", overrides, count, curve=name, pictured=pictured)
    name, null = f"{FULL}, null memory", networks[FULL] | {"sample.memory": "null"}
    for count in steps:
        yield sampled(f"{name}, {count} steps", null, count, curve=name, pictured=False)


def text_rows(config) -> Iterator[dict[str, Any]]:
    """References, the bounds of all models, and their samples; the control and SCMDM are sampled in further ways."""
    variant = config.variant
    if variant != "paper":
        yield from references(config)
    models, sweep = networks(config, TEXT_STEPS[variant], warmup=500), SWEEP_STEPS[variant]
    for name, overrides in models.items():
        yield bounded(name, overrides)
    for name, overrides in models.items():
        for steps in SAMPLING_STEPS[variant]:
            curves = {"quality": name} | ({"frontier": name} if steps == sweep else {})
            yield sampled(f"{name}, {steps} steps", overrides, steps, curves=curves)
    swept = {name: models[name] for name in (SAME_TOKENS, FULL)}
    for name, overrides in swept.items() if variant == "local" else ():
        yield sampled(f"{name}, 1024 steps", overrides, 1024, curves={"quality": name}, seeds=1)
    name, null = f"{FULL}, null memory", models[FULL] | {"sample.memory": "null"}
    yield sampled(f"{name}, {sweep} steps", null, sweep, curves={"frontier": name})
    for name, overrides in swept.items():
        for temperature in TEMPERATURES[variant]:
            settings = overrides | {"sample.steps": sweep, "sample.temperature": temperature}
            yield sampled(f"{name}, {sweep} steps, temperature {temperature}", settings, curves={"frontier": name})
    for name, overrides in swept.items():
        settings = overrides | {"sample.steps": sweep, "sample.precision": "mdlm_float32"}
        yield sampled(f"{name}, {sweep} steps, low precision", settings, curves={"frontier": (name, "low precision")})
