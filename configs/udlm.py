"""Uniform-state diffusion (UDLM, arXiv 2412.10193) against MDLM and AR networks of equal size, at several step counts.

`paper` and `gpu` are text8 in windows of 256 characters and need --config.data.path=FOLDER. `local` is the same
comparison at a million parameters on the bytes of the standard library's sources.
"""

from configs.base import defaults
from configs.recipes.small import short_bytes
from configs.recipes.table import JUDGED, TEXT, columns, quality
from configs.recipes.text import baselines, in_steps, text8

TABLE = dict(
    title="Uniform-state diffusion: UDLM against MDLM and AR",
    columns=columns(
        ("bits_per_character", "bits/character (test)", ".3f"), "evaluations", JUDGED, *TEXT[1:], "seconds_per_sample"
    ),
    published={
        "AR": {"bits_per_character": 1.23},
        "MDLM": {"bits_per_character": 1.40},
        "UDLM": {"bits_per_character": 1.44},
    },
    comparable=("paper",),
    tolerance={"bits_per_character": 0.02},
    plots=(quality(),),
    notes=(
        "AR's figure is exact, the others are upper bounds: MDLM's bound_continuous, UDLM's bound_uniform. Published "
        "figures are those of text8, as recalled from the literature, not checked. UDLM reads the time, which its "
        "states do not show; MDLM does not, and has one more class, the mask. Both draw in the last step, which NFE "
        "counts. UDLM may change every position in every step, MDLM each of them once. The judge is the AR row."
    ),
)
STEPS = {"paper": (16, 32, 64, 128, 256, 1000), "gpu": (8, 32, 128), "local": (8, 32, 128), "debug": (2, 4)}
UNIFORM = {"process.name": "uniform", "objective.name": "nelbo", "model.time_conditioning": True}


def get_config(variant: str = "local"):
    config = defaults("udlm", variant)
    (short_bytes if variant == "local" else text8)(config)
    config.sample.final = "draw"
    config.judge.update(name="row", row="AR")
    return config


def rows(config):
    steps = STEPS[config.variant]
    yield from baselines(config, steps)
    yield from in_steps("UDLM", UNIFORM, steps)
