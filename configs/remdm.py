"""Remasking samplers without a predictor (ReMDM, arXiv 2503.00307): every rule, and the effect of its settings.

`paper` is OpenWebText with the public MDLM checkpoint (--config.checkpoint=FOLDER, converted) or the table's own base
row, in windows of 1,024 tokens; it needs --config.data.path and --config.data.tokenizer_path. `local` has the
base of `configs/gstar_code.py`, whose samplers are compared with the best row of this table.
"""

from configs.recipes.gstar import BASE, LATE, LOOP, P2, PLAIN, remdm
from configs.recipes.table import TEXT, columns, evaluated, frontier, sampled
from configs.recipes.text import judged, references

STEPS = {"paper": (128, 256, 512, 1024, 2048, 4096), "gpu": (32, 128), "local": (64,), "debug": (4,)}
# MAUVE, generative perplexity and entropy, as recalled: MDLM's, and the best ReMDM's at that number of steps.
RECALLED = {
    "ancestral": {
        128: (0.015, 61.5, 5.52),
        256: (0.023, 55.8, 5.49),
        512: (0.031, 53.0, 5.48),
        1024: (0.042, 51.3, 5.46),
        2048: (0.037, 51.3, 5.46),
        4096: (0.035, 50.9, 5.45),
    },
    "ReMDM-cap": {128: (0.057, 42.5, 5.43), 256: (0.216, 30.5, 5.34), 512: (0.350, 21.1, 5.21)},
    "ReMDM-loop": {1024: (0.403, 28.6, 5.38), 2048: (0.610, 22.8, 5.30), 4096: (0.656, 17.6, 5.20)},
}
# Settings beside the published ones, at the small scales.
TUNED = {
    **{f"ReMDM-cap, eta {eta:g}": remdm("cap", eta) for eta in (0.02, 0.08)},
    **{f"ReMDM-rescale, eta {eta:g}": remdm("rescale", eta) for eta in (0.05, 0.1)},
    **{f"ReMDM-loop exact, eta {eta:g}": remdm("cap", eta) | LOOP for eta in (0.1,)},
    "Star+, from 0.2": {"sample.policy": "star"} | LATE | {"sample.remask.on": 0.2},
    "Star-loop, level 0.2": {"sample.policy": "star"} | LOOP | {"sample.remask.level": 0.2},
    "P2, eta 0.5": {"sample.policy": "p2", "sample.remask.eta": 0.5},
    "P2, eta 2": {"sample.policy": "p2", "sample.remask.eta": 2.0},
    "ancestral, temperature 0.9": {"sample.temperature": 0.9},
    "ancestral, temperature 0.8": {"sample.temperature": 0.8},
}

TABLE = dict(
    title="Remasking samplers without a predictor",
    columns=columns("bits_per_byte", "evaluations", "mauve", *TEXT, "parse_rate", "seconds_per_sample"),
    published={
        "Held-out text": dict(mauve=1.00, generative_perplexity=14.8, entropy=5.44),
        "AR": dict(mauve=0.760, generative_perplexity=12.1, entropy=5.22),
    }
    | {
        f"{method}, {steps}": dict(zip(("mauve", "generative_perplexity", "entropy"), figures, strict=True))
        for method, cells in RECALLED.items()
        for steps, figures in cells.items()
    },
    comparable=("paper",),
    published_variants=("paper",),
    tolerance={"mauve": 0.05, "generative_perplexity": 5.0, "entropy": 0.1},
    plots=(frontier("Better text or sharper text"),),
    notes=(
        "All rows sample one denoiser, with one evaluation per step and one that fills what is left. Published figures "
        "are those of the ReMDM paper at 1,024 tokens, nucleus 0.9 and 5,000 samples, as recalled, not checked: the "
        "best of its variants, cap below 1,024 steps and loop from there on. ReMDM-loop, forward-backward and the DFM "
        "corrector are those of the public code, with survival probability 1 - t, a loop whose steps continue their "
        "phase, and more steps than asked for; their exact forms have the mask levels of the process at both ends of "
        "a step. On bytes confidence decoding and P2 collapse to a few symbols; they are "
        "left out of the plot."
    ),
)


SAMPLES = {
    "paper": dict(count=5000, batch=64, nucleus=0.9, nucleus_rule="inclusive", final="argmax"),
    "gpu": dict(count=512, batch=64),
    "local": dict(count=128, batch=128),
    "debug": {},
}


def get_config(variant: str = "local"):
    config = judged("remdm", variant)
    config.quality.parse = variant in ("local", "debug")
    config.sample.update(dict(final="draw") | SAMPLES[variant])
    return config


def rows(config):
    variant = config.variant
    yield from references(config)
    yield evaluated(BASE)
    methods = PLAIN if variant == "paper" else PLAIN | TUNED
    for steps in STEPS[variant]:
        for name, overrides in methods.items():
            curve = name.partition(",")[0]
            # These two collapse on bytes (see the notes), outside the range of the plot.
            collapsed = variant == "local" and curve in ("confidence", "P2")
            curves = {} if collapsed else {"frontier": (curve, str(steps))}
            yield sampled(f"{name}, {steps}", overrides, steps, curves=curves)
    if variant != "local":
        for name, overrides in P2.items():
            yield sampled(f"{name}, {STEPS[variant][0]}", overrides, STEPS[variant][0], curves={})
