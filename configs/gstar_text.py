"""G-Star on text: samplers that draft and revise what a learned predictor calls an error, beside remasking samplers.

`paper` is OpenWebText in padded documents of 512 tokens: a denoiser (the table's own base row, or a converted public
checkpoint by --config.checkpoint=FOLDER), a predictor of its full size trained by cross-entropy on the denoiser's
errors, and 32 to 1,024 steps. It needs --config.data.path, --config.data.tokenizer_path, the judge's files, and GPT-2
small for labels by likelihood (--config.predictor.judge_checkpoint, converted). `gpu` is English Wikipedia of 2018,
`local` the standard library's sources in tokens of a trained vocabulary: the base of the quickstart.
"""

from configs.recipes.gstar import BASE, GUIDED, LATE, NOTES, PLAIN, PLANNED, PREDICTOR_COLUMNS, predictor
from configs.recipes.small import small
from configs.recipes.table import TEXT, columns, evaluated, frontier, quality, sampled
from configs.recipes.text import judged, references

STEPS = {"paper": (32, 64, 128, 256, 512, 1024), "gpu": (16, 64, 256), "local": (64,), "debug": (2, 4)}
# Steps at which windows, temperatures, predictors and labels are varied.
ABLATED = {"paper": 128, "gpu": 64, "local": 64, "debug": 4}
SAMPLERS = (
    "ancestral",
    "ReMDM-cap",
    "ReMDM-cap, eta 0.04",
    "ReMDM-rescale",
    "ReMDM-loop",
    "ReMDM-loop exact",
    "P2",
    "Star+",
    "Star-loop",
)
WINDOWS = {
    "paper": (0.1, 0.2, 0.4, 0.55),
    "gpu": (0.1, 0.2, 0.4, 0.55),
    "local": (0.1, 0.2, 0.55),
    "debug": (0.1, 0.55),
}
DEFAULT = {"paper": "full", "gpu": "block", "local": "block", "debug": "head"}

TABLE = dict(
    title="G-Star on text: star-shaped sampling with a learned remasking module",
    columns=columns(
        "bits_per_byte",
        *PREDICTOR_COLUMNS,
        *("evaluations", "predictor_evaluations", "gigaflops"),
        *("mauve", *TEXT, "seconds_per_sample"),
    ),
    published={"G-Star-loop, 128 steps": {"mauve": 0.573}},
    comparable=("paper",),
    tolerance={"mauve": 0.05},
    plots=(
        quality("Sample quality against cost, error predictor included", "gigaflops"),
        frontier("Better text or sharper text"),
    ),
    notes=(
        NOTES + "Published, second-hand: MAUVE 0.573 for G-Star-loop at 128 steps against 0.234 for the best ReMDM, "
        "whose variant is not known; most of the paper's table could not be read. Samplers of equal steps differ in "
        "cost by the predictor's. Temperature is that of the choice of positions, 1 unless stated; a window from 0.3 "
        "is the one reported best without guidance, and was never tuned with it. The denoiser's averaged weights make "
        "the predictor's labels and the samples; the published code trains it on the raw ones."
    ),
)


def get_config(variant: str = "local"):
    config = judged("gstar_text", variant, local=small)
    if variant == "paper":
        config.data.update(length=512, packing="padded", document="file")
        config.sample.update(count=5000, batch=64, nucleus=0.9, nucleus_rule="inclusive")
    elif variant == "gpu":
        config.sample.update(count=512, batch=64)
    return config


def learner(config, kind: str, **fields) -> dict:
    """Overrides of an error predictor; at local scale, where ten are trained, half of the usual steps."""
    return predictor(config, kind, **fields) | ({"train.steps": 500} if config.variant == "local" else {})


def ablations(config, kind: str):
    """(name, overrides) of settings beside the table's own, each changed alone."""
    trained = learner(config, kind)
    loop, late = GUIDED["G-Star-loop"] | trained, GUIDED["G-Star+"] | trained
    for on in WINDOWS[config.variant]:
        yield f"Star+, from {on}", PLAIN["Star+"] | {"sample.remask.on": on}
        yield f"G-Star+, from {on}", late | {"sample.remask.on": on}
    for temperature in (0.0, 0.5, 2.0, 4.0):
        yield f"G-Star-loop, temperature {temperature:g}", loop | {"sample.remask.temperature": temperature}
    yield "G-Star-loop, adaptive", loop | {"sample.remask.adaptive": True}
    for other in (each for each in ("head", "block", "full") if each != kind):
        yield f"G-Star-loop, {other}", GUIDED["G-Star-loop"] | learner(config, other)
    changed = {
        "corruption": {"labels": "corruption"},
        "consistency": {"labels": "consistency"},
        "ranknet": {"loss": "ranknet"},
        "balanced": {"loss": "balanced"},
        "filled": {"scope": "filled"},
        "own masks": {"own_masks": True},
    }
    if config.variant != "local":
        changed["constant time"] = {"time": 1.0}  # that of the public code
    if config.variant == "paper":
        changed["GPT-2 likelihood"] = {"labels": "likelihood", "judge": "gpt2"}
    else:
        changed["likelihood"] = {"labels": "likelihood", "judge": "AR"}
    for name, fields in changed.items():
        yield f"G-Star-loop, {name}", GUIDED["G-Star-loop"] | learner(config, kind, **fields)
    if config.variant != "local":
        yield from PLANNED.items()


def rows(config):
    variant, kind = config.variant, DEFAULT[config.variant]
    if variant != "paper":
        yield from references(config, steps=0)
    yield evaluated(BASE)
    guided, point = learner(config, kind), ABLATED[variant]
    yield dict(name=f"predictor, {kind}", overrides=guided, verbs=("train",))
    methods = {name: PLAIN[name] for name in SAMPLERS}
    methods |= {name: GUIDED[name] | guided for name in ("G-Star+", "G-Star-loop", "P2, planner")}
    methods["G-Star+, from 0.2"] = GUIDED["G-Star+"] | guided | LATE | {"sample.remask.on": 0.2}
    for steps in STEPS[variant]:
        for name, overrides in methods.items():
            curve = tuple(name.split(", "))
            curves = {"quality": curve} | ({"frontier": curve} if steps == point else {})
            yield sampled(f"{name}, {steps} steps", overrides, steps, curves=curves)
    for name, overrides in ablations(config, kind):
        if name not in methods:
            curves = {"frontier": tuple(name.split(", "))}
            yield sampled(f"{name}, {point} steps", overrides, point, curves=curves, seeds=1)
