"""The first table: an autoregressive baseline and MDLM on the standard library's own sources, sampled two ways.

No paper prints these numbers; the table shows the whole machine at work on any computer.
"""

from typing import Any

from configs.base import defaults
from configs.recipes.small import left_to_right, small, tiny

TABLE: dict[str, Any] = dict(
    title="Quickstart: Python source, AR against masked diffusion",
    columns=(
        ("bits_per_byte", "bits/byte (test)", ".3f"),
        ("evaluations", "NFE", ".0f"),
        ("generative_perplexity", "gen. perplexity (AR judge)", ".1f"),
        ("entropy", "entropy (nats)", ".3f"),
        ("diversity", "diversity", ".3f"),
        ("parse_rate", "parses", ".3f"),
        ("seconds_per_sample", "s/sample", ".3f"),
    ),
    published={},
    plots=(
        dict(
            name="quality",
            x="evaluations",
            y="generative_perplexity",
            title="Sample quality against cost",
            xlabel="denoiser evaluations a sample (NFE)",
            ylabel="perplexity under the AR judge",
            log_y=True,
        ),
    ),
    notes=(
        "AR's bits a byte are exact, MDLM's are a bound (bound_continuous). NFE counts denoiser evaluations, also the "
        "one that fills what is left after the last step. The judge is the AR row, so its own samples are judged by "
        "their author. Confidence decoding draws what the network is sure of first: its perplexity is low because its "
        "entropy and diversity are, and at this scale it is no better text. Text this short rarely parses; the row of "
        "held-out text says how rarely."
    ),
)

STEPS = {"paper": (32, 64, 128, 256), "gpu": (8, 16, 32, 64, 128), "local": (8, 16, 32, 64), "debug": (2, 4)}


def get_config(variant: str = "local"):
    config = defaults("quickstart", variant)
    config.judge.update(name="row", row="AR")
    config.quality.parse = True
    if variant == "debug":
        return tiny(config)
    if variant == "local":
        small(config)
    elif variant == "gpu":
        config.data.update(vocab_size=4096, length=512)
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=200, decay="cosine", weight_decay=0.01)
        config.train.update(steps=3000, batch=128, ema=0.999, evaluate_every=500, evaluate_batches=1)
        config.train.checkpoint_every = 1000
        config.sample.update(count=256, batch=128)
    else:
        config.data.update(vocab_size=4096, length=1024)
        config.model.update(dtype="bfloat16", remat="dots")
        config.train.update(steps=20_000, batch=256, evaluate_every=2000, evaluate_batches=1, checkpoint_every=2000)
        config.sample.update(count=512, batch=128)
    return config


def rows(config):
    yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",))
    yield dict(name="AR", overrides=left_to_right(config), verbs=("evaluate", "sample"))
    yield dict(name="MDLM", overrides={}, verbs=("evaluate",))
    for policy in ("ancestral", "confidence"):
        for steps in STEPS[config.variant]:
            overrides = {"sample.policy": policy, "sample.steps": steps, "sample.noise": 1.0}
            yield dict(name=f"MDLM, {policy}, {steps} steps", overrides=overrides, verbs=("sample",), curve=policy)
