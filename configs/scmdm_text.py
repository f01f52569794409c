"""SCMDM on text: a trained MDLM goes on training with its own prediction as input, beside its controls.

`paper` is the recipe on OpenWebText (needs --config.data.path and --config.data.tokenizer_path): it starts from a
converted public MDLM checkpoint given with --config.checkpoint=FOLDER, or from the table's own base row. `gpu` is the
same at a smaller size on English Wikipedia articles of 2018, `local` on bytes of the standard library's sources
(`configs/scmdm_wiki.py` is Wikipedia at every scale). The question is whether a fall in generative perplexity is better
text or sharper text: every model is sampled at several temperatures, and only a point off the base's curve of
perplexity against entropy is a gain.
"""

from collections.abc import Iterator
from typing import Any

from configs.base import defaults
from configs.mdlm_owt import openwebtext, wikipedia, zero_shot
from configs.recipes.scmdm import BASE, BOUNDS, FULL, NOTES, SAME_TOKENS, after_training, bounds, models
from configs.recipes.small import left_to_right, python_bytes, tiny

TEMPERATURES = {"paper": (0.8, 0.9, 1.1), "gpu": (0.8, 0.9, 1.1), "local": (0.7, 0.8, 0.9, 1.1), "debug": (0.9,)}
STEPS = {"paper": (32, 128, 1000), "gpu": (16, 64, 256), "local": (16, 128), "debug": (2, 4)}
# At which the temperature sweep, the low-precision race and all controls are sampled.
SWEEP_STEPS = {"paper": 1000, "gpu": 64, "local": 128, "debug": 4}
POST_TRAINING = {"paper": 6200, "gpu": 600, "local": 400, "debug": 4}
ZERO_SHOT = {
    BASE: (101.71, 37.82, 50.04, 70.60, 44.45, 39.14),
    FULL: (99.13, 36.48, 49.09, 68.13, 41.72, 37.75),
}
SETS = ("ptb", "wikitext", "lambada", "ag_news", "pubmed", "arxiv")

COLUMNS = (
    ("perplexity", "perplexity (two passes; MDLM: one)", ".2f"),
    *BOUNDS,
    ("evaluations", "NFE", ".0f"),
    ("generative_perplexity", "gen. perplexity", ".2f"),
    ("entropy", "entropy (nats)", ".3f"),
    ("diversity", "diversity", ".3f"),
    ("mauve", "MAUVE", ".3f"),
    ("parse_rate", "parses", ".3f"),
    ("seconds_per_sample", "s/sample", ".3f"),
)

TABLE = dict(
    title="SCMDM on text: self-conditioning after training, and its controls",
    columns=(*COLUMNS, *((f"{name}_perplexity", name, ".2f") for name in SETS)),
    published={
        name: {f"{each}_perplexity": value for each, value in zip(SETS, values, strict=True)}
        for name, values in ZERO_SHOT.items()
    }
    | {
        f"{BASE}, 1000 steps": {"generative_perplexity": 42.89},
        "SCMDM, lambda 0.5, 1000 steps": {"generative_perplexity": 37.04},
        f"{FULL}, 1000 steps": {"generative_perplexity": 23.72},
    },
    comparable=("paper",),
    tolerance={"generative_perplexity": 3.0} | {f"{name}_perplexity": 3.0 for name in SETS},
    plots=(
        dict(
            name="frontier",
            x="entropy",
            y="generative_perplexity",
            title="Better text or sharper text: temperature sweeps at equal evaluations",
            xlabel="entropy of a sample's tokens (nats)",
            ylabel="perplexity under the judge",
            log_x=False,
            log_y=True,
        ),
        dict(
            name="quality",
            x="evaluations",
            y="generative_perplexity",
            title="Sample quality against cost",
            xlabel="denoiser evaluations a sample (NFE)",
            ylabel="perplexity under the judge",
            log_y=True,
        ),
    ),
    notes=(
        "Of the published figures the sampler's precision, its number of samples and whether the base was trained on "
        "are unknown, so the low-precision rows stand beside the exact ones. The zero-shot figures of the MDLM row "
        "belong to the paper's own base. MAUVE at local scale rests on few samples and compares rows of this table "
        "alone. " + NOTES
    ),
)


def get_config(variant: str = "local"):
    config = defaults("scmdm_text", variant)
    config.judge.update(name="row", row="AR")
    config.quality.update(mauve=variant != "debug", parse=variant in ("local", "debug"))
    config.sample.final = "draw"
    if variant == "paper":
        openwebtext(config)
        zero_shot(config, required=False)
        config.judge.update(name="gpt2", row="")
        config.sample.update(count=1024, final="argmax")
    elif variant == "gpu":
        wikipedia(config)
    elif variant == "local":
        python_bytes(config)
    else:
        tiny(config)
    return config


def rows(config) -> Iterator[dict[str, Any]]:
    variant = config.variant
    sweep = SWEEP_STEPS[variant]
    if variant != "paper":
        yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",), seeds=1)
        steps = {"train.steps": 2000} if variant == "local" else {}
        overrides = left_to_right(config) | steps
        yield dict(name="AR", overrides=overrides, verbs=("evaluate", "sample"), seeds=1)
    networks = dict(models(POST_TRAINING[variant], after_training(config, warmup=500)))
    for name, overrides in networks.items():
        yield dict(name=name, overrides=overrides | bounds(overrides), verbs=("evaluate",))
    swept = (SAME_TOKENS, FULL)
    for name, overrides in networks.items():
        for steps in STEPS[variant]:
            curves = {"quality": name} | ({"frontier": name} if steps == sweep else {})
            settings = overrides | {"sample.steps": steps}
            yield dict(name=f"{name}, {steps} steps", overrides=settings, verbs=("sample",), curves=curves)
    if variant == "local":
        for name in swept:
            settings = networks[name] | {"sample.steps": 1024}
            curves = {"quality": name}
            yield dict(name=f"{name}, 1024 steps", overrides=settings, verbs=("sample",), curves=curves, seeds=1)
    null = networks[FULL] | {"sample.memory": "null", "sample.steps": sweep}
    name = f"{FULL}, null memory"
    yield dict(name=f"{name}, {sweep} steps", overrides=null, verbs=("sample",), curves={"frontier": name})
    for name in swept:
        for temperature in TEMPERATURES[variant]:
            settings = networks[name] | {"sample.steps": sweep, "sample.temperature": temperature}
            title = f"{name}, {sweep} steps, temperature {temperature}"
            yield dict(name=title, overrides=settings, verbs=("sample",), curves={"frontier": name})
    for name in swept:
        settings = networks[name] | {"sample.steps": sweep, "sample.precision": "mdlm_float32"}
        title = f"{name}, {sweep} steps, low precision"
        label = (name, "low precision")
        yield dict(name=title, overrides=settings, verbs=("sample",), curves={"frontier": label})
