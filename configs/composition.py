"""What combines: three denoisers under five samplers, at equal evaluations.

MDLM, SCMDM (the same network, trained on with its own prediction as input) and MDM-Prime with two digits a token are
sampled ancestrally, by ReMDM, by star-shaped steps without and with a learned error predictor, and by P2. Every piece
is the one of its own table; the trainings are shared with those tables.
"""

from typing import Any

from configs.base import defaults
from configs.mdlm_owt import openwebtext, wikipedia
from configs.recipes.gstar import BASE, GUIDED, NOTES, PLAIN, cost, equal_steps, predictor
from configs.recipes.scmdm import FULL, after_training, models
from configs.recipes.small import left_to_right, python_bytes, tiny
from configs.scmdm_text import POST_TRAINING

BUDGETS = {"paper": (128, 512), "gpu": (32, 128), "local": (64,), "debug": (4,)}
SCMDM, PRIME = "SCMDM", "Prime, 2 digits"
# Beside 1: a curve of the plain denoiser's, and points of the guided samplers at its higher entropies.
TEMPERATURES = {
    ("local", BASE, "Star-loop"): (0.8, 0.9, 1.1),
    **{("local", name, "G-Star-loop"): (1.1,) for name in (BASE, SCMDM, PRIME)},
}

TABLE = dict(
    title="Denoisers and samplers combined, at equal evaluations",
    columns=(
        ("perplexity", "perplexity (bound)", ".2f"),
        ("evaluations", "NFE", ".0f"),
        ("predictor_evaluations", "predictor", ".0f"),
        ("gigaflops", "GFLOP", ".2f"),
        ("generative_perplexity", "gen. perplexity", ".2f"),
        ("entropy", "entropy (nats)", ".3f"),
        ("diversity", "diversity", ".3f"),
        ("mauve", "MAUVE", ".3f"),
        ("parse_rate", "parses", ".3f"),
        ("seconds_per_sample", "s/sample", ".3f"),
    ),
    published={},
    plots=(
        dict(
            name="quality",
            x="seconds_per_sample",
            y="generative_perplexity",
            title="Quality against wall time: three denoisers, five samplers",
            xlabel="seconds a sample",
            ylabel="perplexity under the judge",
            log_y=True,
        ),
        dict(
            name="frontier",
            x="entropy",
            y="generative_perplexity",
            title="Better text or sharper text",
            xlabel="entropy of a sample's tokens (nats)",
            ylabel="perplexity under the judge",
            log_x=False,
            log_y=True,
        ),
    ),
    notes=(
        NOTES + "Nobody publishes these numbers. The error predictor is a head of one block, trained on each "
        "denoiser's own mistakes; with digits a token is suspected whole and its digits are masked one by one. The "
        "number behind a row's name is its budget in evaluations, the predictor's share included. SCMDM has been "
        "trained on for longer than the others. Prime is trained on its joint objective, whose curve is no likelihood; "
        "its perplexity is that of the valid bound. On bytes P2 fills windows with one symbol, and is left out of the "
        "plots."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("composition", variant)
    config.judge.update(name="row", row="AR")
    config.quality.update(mauve=variant != "debug", parse=variant in ("local", "debug"))
    config.sample.final = "draw"
    if variant == "paper":
        openwebtext(config)
        config.judge.update(name="gpt2", row="")
        config.sample.update(count=1024, nucleus=0.9, nucleus_rule="inclusive")
    elif variant == "gpu":
        wikipedia(config)
        config.sample.update(count=256, batch=64)
    elif variant == "local":
        python_bytes(config)
    else:
        tiny(config)
    return config


def rows(config):
    variant = config.variant
    if variant != "paper":
        yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",), seeds=1)
        steps = {"train.steps": 2000} if variant == "local" else {}
        yield dict(name="AR", overrides=left_to_right(config) | steps, verbs=("evaluate", "sample"), seeds=1)
    trained_on = dict(models(POST_TRAINING[variant], after_training(config, warmup=500)))[FULL]
    denoisers = {
        BASE: {},
        SCMDM: trained_on,
        PRIME: {"codec.digits": 2, "objective.target": "joint"},
    }
    for name, overrides in denoisers.items():
        yield dict(name=name, overrides=overrides, verbs=("evaluate",))
    for name, overrides in denoisers.items():
        guide = overrides | predictor(config, "block", base=name)
        samplers = {
            method: overrides | PLAIN[method] for method in ("ancestral", "ReMDM-loop, eta 0.05", "Star-loop", "P2")
        }
        samplers["G-Star-loop"] = guide | GUIDED["G-Star-loop"]
        for budget in BUDGETS[variant]:
            for method, settings in samplers.items():
                steps = equal_steps(budget, method, cost(config, "block"))
                # P2 collapses on bytes, far off what the plots can show beside the others.
                collapsed = variant == "local" and method == "P2"
                curves = {} if collapsed else {"quality": (name, method), "frontier": (name, method)}
                settings = settings | {"sample.steps": steps}
                row: dict[str, Any] = dict(overrides=settings, verbs=("sample",), curves=curves)
                yield row | {"name": f"{name}, {method}, {budget}"}
                for temperature in TEMPERATURES.get((variant, name, method), ()):
                    yield row | {
                        "name": f"{name}, {method}, {budget}, temperature {temperature}",
                        "overrides": row["overrides"] | {"sample.temperature": temperature},
                        "curves": {"frontier": (name, method)},
                    }
