"""What the tables of SCMDM share: the rows that go on training from a base row, and their controls.

It is no table of its own.
"""

ADAPTER = {"memory.adapter": "linear"}
BASE = "MDLM"
SAME_TOKENS = "MDLM, same tokens"
FULL = "SCMDM, lambda 1"
# What a row adds to the base: its memory, and its steps for those of the two-pass rows.
MODELS = {
    SAME_TOKENS: ({}, 1.0),
    "MDLM, same FLOPs": ({}, 4 / 3),
    "SCMDM, lambda 0.5": (ADAPTER | {"memory.rate": 0.5}, 1.0),
    "SCMDM, lambda 0.9": (ADAPTER | {"memory.rate": 0.9}, 1.0),
    FULL: (ADAPTER, 1.0),
}
# The three bounds of a network that remembers; the plain one stands for the base's only bound too.
BOUNDS = (
    ("bound_continuous/nats_per_token", "null pass (nats/token)", ".4f"),
    ("bound_continuous_passes_2/nats_per_token", "two passes (nats/token)", ".4f"),
    ("bound_continuous_passes_3/nats_per_token", "three passes (nats/token)", ".4f"),
)
NOTES = (
    "Every row below MDLM starts from that row's averaged weights of the same seed; lambda is the rate at which "
    "training reads the first pass's prediction, and a step at lambda 1 costs 4/3 of a plain one. The null pass is "
    "the network that is told nothing, two and three passes read their own prediction at the same state and are the "
    "likelihoods (upper bounds of them) of samplers that spend as many evaluations a step; the sampler measured here "
    "reuses the step before and spends one. `null memory` samples the SCMDM network without its memory. NFE counts "
    "the last fill too. Published figures are second-hand (the paper's body could not be read); how the prediction "
    "enters the network is a choice of ours (a soft embedding through a matrix that starts at zero, at masked "
    "positions alone)."
)


def models(steps: int, shared: dict):
    """(name, overrides) of the base and of all that is trained on from it, for `steps` with the overrides `shared`."""
    yield BASE, {}
    for name, (overrides, factor) in MODELS.items():
        yield name, {"start": BASE, "train.steps": round(steps * factor)} | shared | overrides


def after_training(config, warmup: int) -> dict:
    """Overrides that all rows share which start from the base: a short warm-up, and smaller steps at small scale."""
    if config.variant == "paper":
        return {"optimizer.warmup": warmup}
    if config.variant == "debug":
        return {}
    return {"optimizer.warmup": 30, "optimizer.learning_rate": config.optimizer.learning_rate / 3}


def bounds(overrides: dict) -> dict:
    """The estimators that a row's model is scored by beside its first."""
    names = ("bound_continuous", "bound_continuous_passes_3") if "memory.adapter" in overrides else ()
    return {"evaluate.also": names}


def rows(networks: dict, steps: tuple[int, ...], held_out: str):
    """Held-out examples, the bounds of all models, and samples of them at the last of `steps`, of some at all.

    Full self-conditioning and its nearest control are sampled at every number of steps, with and without memory.
    """
    yield dict(name=held_out, overrides={"sample.policy": "data"}, verbs=("sample",), seeds=1)
    for name, overrides in networks.items():
        yield dict(name=name, overrides=overrides | bounds(overrides), verbs=("evaluate",))
    for name, overrides in networks.items():
        for number in steps if name in (BASE, SAME_TOKENS, FULL) else steps[-1:]:
            yield sampled(name, overrides, number, pictured=number == steps[-1] and name in (BASE, FULL))
    for number in steps:
        yield sampled(f"{FULL}, null memory", networks[FULL] | {"sample.memory": "null"}, number, pictured=False)


def sampled(name: str, overrides: dict, steps: int, pictured: bool) -> dict:
    """The row of one model's samples, which is a point of its curve."""
    settings = overrides | {"sample.steps": steps}
    verbs = ("sample",)
    return dict(name=f"{name}, {steps} steps", overrides=settings, verbs=verbs, curve=name, pictured=pictured)
