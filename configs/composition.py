"""Three denoisers under five samplers, at equal evaluations.

MDLM, SCMDM (the same network, trained further with its own prediction as input) and MDM-Prime with two sub-tokens per
token are sampled ancestrally, by ReMDM, by star-shaped steps without and with a learned error predictor, and by P2. The
parts and the trainings are those of their own tables.
"""

from configs.recipes.gstar import BASE, GUIDED, NOTES, PLAIN, equal_steps, predictor, predictor_cost
from configs.recipes.scmdm import FULL, TEXT_STEPS, networks
from configs.recipes.table import TEXT, columns, evaluated, frontier, quality, sampled
from configs.recipes.text import judged, references

BUDGETS = {"paper": (128, 512), "gpu": (32, 128), "local": (64,), "debug": (4,)}
SCMDM, PRIME = "SCMDM", "Prime, 2 digits"
# Beside 1: the plain denoiser's curve, and points of the guided samplers near its larger entropies.
TEMPERATURES = {
    ("local", BASE, "Star-loop"): (0.8, 0.9, 1.1),
    **{("local", name, "G-Star-loop"): (1.1,) for name in (BASE, SCMDM, PRIME)},
}

TABLE = dict(
    title="Denoisers and samplers combined, at equal evaluations",
    columns=columns(
        ("perplexity", "perplexity (bound)", ".2f"),
        *("evaluations", "predictor_evaluations", "gigaflops"),
        *(*TEXT, "mauve", "parse_rate", "seconds_per_sample"),
    ),
    published={},
    plots=(
        quality("Quality against wall time: three denoisers, five samplers", "seconds_per_sample"),
        frontier("Better text or sharper text"),
    ),
    notes=(
        NOTES + "Nobody publishes these numbers. The error predictor is a head of one block, trained on each "
        "denoiser's own mistakes; with digits a token is suspected whole and its digits are masked one by one. The "
        "number behind a row's name is its budget in evaluations, the predictor's share included. SCMDM has been "
        "trained on for longer than the others. Prime is trained on its joint objective, whose curve is not a "
        "likelihood; "
        "its perplexity is that of the valid bound. On bytes P2 fills windows with one symbol, and is left out of the "
        "plots."
    ),
)


SAMPLES = {
    "paper": dict(count=1024, nucleus=0.9, nucleus_rule="inclusive"),
    "gpu": dict(count=256, batch=64),
    "local": {},
    "debug": {},
}


def get_config(variant: str = "local"):
    config = judged("composition", variant)
    config.quality.parse = variant in ("local", "debug")
    config.sample.update(dict(final="draw") | SAMPLES[variant])
    return config


def rows(config):
    variant = config.variant
    if variant != "paper":
        yield from references(config)
    denoisers = {
        BASE: {},
        SCMDM: networks(config, TEXT_STEPS[variant], warmup=500)[FULL],
        PRIME: {"codec.digits": 2, "objective.target": "joint"},
    }
    for name, overrides in denoisers.items():
        yield evaluated(name, overrides)
    for name, overrides in denoisers.items():
        methods = ("ancestral", "ReMDM-loop exact, eta 0.05", "Star-loop", "P2")
        samplers = {method: overrides | PLAIN[method] for method in methods}
        guide = predictor(config, "block", base=name)
        samplers["G-Star-loop"] = overrides | guide | GUIDED["G-Star-loop"]
        for budget in BUDGETS[variant]:
            for method, settings in samplers.items():
                yield from at_temperatures(config, name, method, budget, settings)


def at_temperatures(config, name: str, method: str, budget: int, settings: dict):
    """Samples of one denoiser by one sampler, at temperature 1 and at those of TEMPERATURES."""
    steps = equal_steps(budget, method, predictor_cost(config, "block"))
    title, curve = f"{name}, {method}, {budget}", (name, method)
    # P2 collapses on bytes, outside the range of the plots.
    collapsed = config.variant == "local" and method == "P2"
    yield sampled(title, settings, steps, curves={} if collapsed else {"quality": curve, "frontier": curve})
    for temperature in TEMPERATURES.get((config.variant, name, method), ()):
        other = settings | {"sample.steps": steps, "sample.temperature": temperature}
        yield sampled(f"{title}, temperature {temperature}", other, curves={"frontier": curve})
