"""Choices of FastDiSS on validation sentences, which set those of `fastdiss_translation`.

The noise factor F of every method, then the choices that were inferred: gap and coupling of SCP, map and strength of
MANS, and the noise at the start of decoding. The scales are those of `fastdiss_translation`; `local` trains half as
long, one seed. With the files of Tatoeba (--config.data.path=FOLDER) it has F for English to German too, after 2,000
steps.
"""

from typing import Any

from configs.recipes import pairs
from configs.recipes.pairs import TATOEBA, TATOEBA_PREFIX

FACTORS, STEPS = (1.0, 1.5, 2.0, 3.0, 4.0), (5, 20)
FACTOR = 3.0  # where F is not varied
TATOEBA_FACTORS = {"standard": (2.0, 3.0, 4.0, 6.0), "MANS and SCP": (1.5, 2.0, 3.0, 4.0, 6.0)}
TATOEBA_FACTORS["random shift, same mean"] = TATOEBA_FACTORS["MANS and SCP"]
CHOICES: dict[str, dict[str, Any]] = {
    "SCP, Markov noise": pairs.METHODS["SCP, Markov noise"],
    "SCP, uniform gap": pairs.SCP | {"embedding.scp.gap": "uniform"},
    "SCP, gaps of 2 to 20 steps": pairs.SCP | {"embedding.scp.gap": "randk"},
    "SCP, shared noise": pairs.SCP | {"embedding.scp.couple": "shared"},
    "MANS, strength 0.25": pairs.MANS | {"embedding.mans.strength": 0.25},
    "MANS, strength 0.75": pairs.MANS | {"embedding.mans.strength": 0.75},
    "MANS, scale": {"embedding.mans.map": "scale"},
    "MANS, a quarter off": pairs.MANS | {"embedding.mans.off_probability": 0.25},
    "MANS, untold": pairs.MANS | {"embedding.mans.aware": False},
}


def at(method: str, factor: float, steps: int) -> str:
    """The name of a row."""
    return f"{method}, F {factor:g}, {steps} steps"


def by_factor(name: str, title: str, prefix: str, factors: dict, steps: int) -> dict:
    """A plot of BLEU at a number of steps against the F of training, one line per method."""
    lines = {method: tuple((prefix + at(method, each, steps), each) for each in factors[method]) for method in factors}
    return dict(
        name=f"{name}factor_{steps}",
        title=f"{title}: BLEU of {steps} steps, by the noise of training",
        xlabel="noise factor F",
        ylabel="BLEU (validation)",
        log_x=False,
        series=tuple((method, "bleu", places) for method, places in lines.items()),
    )


TABLE = dict(
    title="Choices of FastDiSS, on validation sentences",
    columns=pairs.columns("bleu", "chrf", "exact"),
    published={},
    comparable=(),
    plots=(
        *(by_factor("", "Dialects", "", dict.fromkeys(pairs.SEVEN, FACTORS), steps) for steps in STEPS),
        *(by_factor("tatoeba_", "Tatoeba", TATOEBA_PREFIX, TATOEBA_FACTORS, steps) for steps in STEPS),
    ),
    notes=pairs.NOTES + f" Where no F is named it is {FACTOR:g}.",
)


def get_config(variant: str = "local"):
    config = pairs.translation("fastdiss_ablations", variant, factor=4.0)
    config.seeds = (0,)
    config.sample.translation.split = "validation"
    if variant == "local":
        config.train.update(steps=1000, evaluate_every=1000, checkpoint_every=1000)
    return config


def rows(config):
    if config.variant == "debug":
        yield pairs.row(at("standard", FACTOR, 5), "standard", 5, FACTOR)
        return
    # The path is that of Tatoeba; the synthetic task needs none.
    no_path = {"data.path": ""} if config.data.source == "dialects" else {}
    for method in pairs.SEVEN:
        for factor in FACTORS:
            for steps in STEPS:
                yield pairs.row(at(method, factor, steps), method, steps, factor, shared=no_path)
    for method in ("standard", "MANS"):
        loud: dict[str, Any] = {"sample.translation.factor": FACTOR}
        yield pairs.row(
            f"{method}, decoding from noise of {FACTOR:g}, 5 steps", method, 5, FACTOR, shared=no_path, **loud
        )
    for name, choice in CHOICES.items():
        for steps in STEPS:
            yield pairs.row(f"{name}, {steps} steps", "standard", steps, FACTOR, shared=no_path, **choice)
    if no_path and config.data.path:
        shared = TATOEBA | {"train.steps": 2000}
        for method, factors in TATOEBA_FACTORS.items():
            for factor in factors:
                for steps in STEPS:
                    yield pairs.row(TATOEBA_PREFIX + at(method, factor, steps), method, steps, factor, shared=shared)
