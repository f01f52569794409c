"""The first table: an autoregressive baseline and MDLM on the standard library's sources, with two samplers.

No paper reports these numbers; the table runs every verb on any computer.
"""

from configs.base import defaults
from configs.recipes.small import left_to_right
from configs.recipes.table import JUDGED, TEXT, columns, evaluated, held_out, quality, sampled
from configs.recipes.text import python_source

TABLE = dict(
    title="Quickstart: Python source, AR against masked diffusion",
    columns=columns(
        ("bits_per_byte", "bits/byte (test)", ".3f"),
        "evaluations",
        JUDGED,
        *TEXT[1:],
        "parse_rate",
        "seconds_per_sample",
    ),
    published={},
    plots=(quality(ylabel="perplexity under the AR judge"),),
    notes=(
        "AR's bits per byte are exact, MDLM's are a bound (bound_continuous). NFE counts denoiser evaluations, "
        "including the one that fills the masks left after the last step. The judge is the AR row, which thus also "
        "judges its own samples. Confidence decoding draws the tokens that the network is sure of first: its "
        "perplexity is low because its entropy and diversity are, and at this scale its text is not better. Text this "
        "short rarely parses; the row of held-out text says how rarely."
    ),
)

STEPS = {"paper": (32, 64, 128, 256), "gpu": (8, 16, 32, 64, 128), "local": (8, 16, 32, 64), "debug": (2, 4)}


def get_config(variant: str = "local"):
    config = defaults("quickstart", variant)
    python_source(config)
    if variant == "local":
        # At 800 steps Muon reaches 2.12 bits per byte and AdamW 2.42; rates of 0.002 and 0.006 reach 2.17 and 2.13.
        config.optimizer.blocks = "muon"
    return config


def rows(config):
    yield held_out()
    yield dict(name="AR", overrides=left_to_right(config), verbs=("evaluate", "sample"))
    yield evaluated("MDLM")
    for policy in ("ancestral", "confidence"):
        for steps in STEPS[config.variant]:
            overrides = {"sample.policy": policy, "sample.steps": steps, "sample.noise": 1.0}
            yield sampled(f"MDLM, {policy}, {steps} steps", overrides, curve=policy)
