"""G-Star on code: samplers that revise what they have written, with and without a learned error predictor.

`local` and `gpu` write Python like that of the standard library: besides a judge's perplexity a sample is measured by
whether it parses, whether its names are defined before use, and by gaps in held-out windows that are filled in exactly.
`paper` is CoNaLa (needs --config.data.path=FOLDER and --config.data.tokenizer_path), of whose published setting only
the 64 steps and two perplexities are known. All samplers of a table spend the same number of evaluations.
"""

from configs.base import defaults
from configs.recipes.gstar import BASE, GUIDED, NOTES, PLAIN, PREDICTOR_COLUMNS, cost, equal_steps, predictor
from configs.recipes.small import left_to_right, python_bytes, tiny

BUDGETS = {"paper": (64,), "gpu": (16, 32, 64, 128, 256), "local": (16, 32, 64, 128), "debug": (8,)}
# At which the settings of samplers and predictors are varied, and gaps filled.
ABLATED = {"paper": 64, "gpu": 64, "local": 64, "debug": 8}
# Samplers without a predictor, at every budget and at one.
SAMPLERS = ("ancestral", "ReMDM-loop, eta 0.05", "Star-loop", "P2")
OTHERS = ("ReMDM-cap, eta 0.04", "ReMDM-conf", "confidence-star-loop")
# Of the token draw: they make a curve of perplexity against entropy for every sampler, all of it at one budget.
TEMPERATURES = (0.9, 1.1)

COLUMNS = (
    ("evaluations", "NFE", ".0f"),
    ("predictor_evaluations", "predictor", ".0f"),
    ("gigaflops", "GFLOP", ".2f"),
    ("generative_perplexity", "gen. perplexity", ".2f"),
    ("entropy", "entropy (nats)", ".3f"),
    ("diversity", "diversity", ".3f"),
    ("mauve", "MAUVE", ".3f"),
    ("parse_rate", "parses", ".3f"),
    ("defined_rate", "names defined", ".3f"),
    ("infill_exact", "gaps exact", ".3f"),
    ("infill_accuracy", "gaps' tokens", ".3f"),
    ("seconds_per_sample", "s/sample", ".3f"),
)
TABLE = dict(
    title="G-Star on code: samplers that revise, at equal evaluations",
    columns=(("bits_per_byte", "bits/byte", ".3f"), *PREDICTOR_COLUMNS, *COLUMNS),
    published={
        "G-Star-loop, 64": {"generative_perplexity": 17.8},
        "ReMDM-loop, eta 0.05, 64": {"generative_perplexity": 22.5},
    },
    comparable=("paper",),
    tolerance={"generative_perplexity": 2.0},
    plots=(
        dict(
            name="quality",
            x="gigaflops",
            y="generative_perplexity",
            title="Sample quality against cost, error predictor included",
            xlabel="GFLOP a sample",
            ylabel="perplexity under the judge",
            log_y=True,
        ),
        dict(
            name="parses",
            x="gigaflops",
            y="parse_rate",
            title="Samples that parse against cost, error predictor included",
            xlabel="GFLOP a sample",
            ylabel="share of samples that parse",
        ),
        dict(
            name="frontier",
            x="entropy",
            y="generative_perplexity",
            title="Better text or sharper text: temperatures at one budget",
            xlabel="entropy of a sample's tokens (nats)",
            ylabel="perplexity under the judge",
            log_x=False,
            log_y=True,
        ),
    ),
    notes=(
        NOTES + "The number behind a sampler's name is its budget: a sampler that asks a predictor takes fewer steps. "
        "Published: 17.8 for G-Star and 22.5 for ReMDM on CoNaLa with 64 steps, second-hand; their model, judge and "
        "variants are not known. Gaps are spans of held-out windows that a sampler fills in; a span can be filled in "
        "well and otherwise. `names defined` is the share of names that a sample binds before use, over those samples "
        "that parse; a window of real code lacks its imports (first row). P2 ranks known tokens by the network's "
        "logits there, which the training of MDLM never looks at; on bytes it fills windows with one symbol, and is "
        "left out of the plots."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("gstar_code", variant)
    config.judge.update(name="row", row="AR")
    config.quality.update(parse=True, mauve=variant != "debug")
    config.sample.final = "draw"
    if variant == "paper":
        config.data.update(source="conala", tokenizer="gpt2", vocab_size=50257, length=128, packing="padded")
        config.model.dtype = "bfloat16"
        config.train.update(steps=20_000, batch=128, evaluate_every=1000, evaluate_batches=1, checkpoint_every=2000)
        config.sample.update(count=512, batch=64, nucleus=0.9, nucleus_rule="inclusive", final="argmax")
        config.quality.mauve = False
    elif variant == "gpu":
        config.data.update(vocab_size=4096, length=512)
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=200, decay="cosine", weight_decay=0.01)
        config.train.update(steps=3000, batch=128, ema=0.999, evaluate_every=500, evaluate_batches=1)
        config.train.checkpoint_every = 1000
        config.sample.update(count=512, batch=128)
    elif variant == "local":
        python_bytes(config)
        config.sample.update(count=128, batch=128)
        config.judge.batch = 64
    else:
        tiny(config)
    return config


def rows(config):
    variant = config.variant
    yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",), seeds=1)
    steps = {"train.steps": 2000} if variant == "local" else {}
    yield dict(name="AR", overrides=left_to_right(config) | steps, verbs=("evaluate", "sample"), seeds=1)
    yield dict(name=BASE, overrides={}, verbs=("evaluate",))
    networks = {kind: predictor(config, kind) for kind in ("head", "block", "full")}
    for kind, overrides in networks.items():
        seeds = {"seeds": 1} if kind == "full" else {}
        yield dict(name=f"predictor, {kind}", overrides=overrides, verbs=("train",), **seeds)
    point, width = ABLATED[variant], 16 if variant != "debug" else 8
    guided = GUIDED["G-Star-loop"]
    # (sampler, its overrides, what a question to its predictor costs)
    methods = {name: (name, PLAIN[name], 0.0) for name in SAMPLERS}
    methods["G-Star-loop"] = ("G-Star-loop", guided | networks["head"], 1.0)
    methods["G-Star-loop, one block"] = ("G-Star-loop", guided | networks["block"], cost(config, "block"))
    others = {name: (name, PLAIN[name], 0.0) for name in OTHERS}
    others |= {
        name: (name, GUIDED[name] | networks["block"], cost(config, "block")) for name in ("G-Star+", "P2, planner")
    }
    for budget in BUDGETS[variant]:
        for name, (method, overrides, share) in (methods | (others if budget == point else {})).items():
            settings = overrides | {"sample.steps": equal_steps(budget, method, share)}
            curves = {"quality": name, "parses": name} | ({"frontier": name} if budget == point else {})
            # P2 collapses here (see the notes), far off what the plots can show beside the others.
            curves = {} if name.startswith("P2") else curves
            yield dict(name=f"{name}, {budget}", overrides=settings, verbs=("sample",), curves=curves)
    del methods["P2"]  # at any temperature it writes one token
    for budget in BUDGETS[variant]:
        for name, (method, overrides, share) in methods.items():
            settings = overrides | {"sample.steps": equal_steps(budget, method, share)}
            # Elsewhere as far as the others' curves must reach to be compared with the predictor's.
            near = {"G-Star-loop, one block": (1.1,), "G-Star-loop": ()}.get(name, (0.9,))
            for temperature in TEMPERATURES if budget == point else near:
                yield dict(
                    name=f"{name}, {budget}, temperature {temperature}",
                    overrides=settings | {"sample.temperature": temperature},
                    verbs=("sample",),
                    curves={"frontier": name} if budget == point else {},
                )
    for name, (method, overrides, share) in methods.items():
        settings = overrides | {"sample.steps": equal_steps(point, method, share), "sample.infill": width}
        yield dict(name=f"{name}, {point}, gaps", overrides=settings, verbs=("sample",), curves={})
