"""G-Star on code: samplers that revise earlier tokens, with and without a learned error predictor.

`local` and `gpu` generate Python like that of the standard library. Samples are measured by the perplexity of a judge,
by whether they parse and define names before use, and by exact fills of gaps in held-out windows. `paper` is CoNaLa
(needs --config.data.path=FOLDER and --config.data.tokenizer_path); only the 64 steps and two perplexities of its
published setting are known. All samplers of a table spend the same number of evaluations.
"""

from configs.base import defaults
from configs.recipes.gstar import BASE, GUIDED, NOTES, PLAIN, PREDICTOR_COLUMNS, equal_steps, predictor, predictor_cost
from configs.recipes.small import python_bytes
from configs.recipes.table import TEXT, columns, evaluated, frontier, plot, quality, sampled
from configs.recipes.text import python_source, references

BUDGETS = {"paper": (64,), "gpu": (16, 32, 64, 128, 256), "local": (16, 32, 64, 128), "debug": (8,)}
# Budgets at which the settings of samplers and predictors are varied, and gaps filled.
ABLATED = {"paper": 64, "gpu": 64, "local": 64, "debug": 8}
# Samplers without a predictor, at every budget; OTHERS at one.
SAMPLERS = ("ancestral", "ReMDM-loop exact, eta 0.05", "Star-loop", "P2")
OTHERS = ("ReMDM-cap, eta 0.04", "ReMDM-conf", "confidence-star-loop")
# Temperatures of tokens at one budget, which make a curve of perplexity against entropy for every sampler.
TEMPERATURES = (0.9, 1.1)

TABLE = dict(
    title="G-Star on code: samplers that revise, at equal evaluations",
    columns=columns(
        ("bits_per_byte", "bits/byte", ".3f"),
        *PREDICTOR_COLUMNS,
        *("evaluations", "predictor_evaluations", "gigaflops"),
        *(*TEXT, "mauve", "parse_rate", "defined_rate", "infill_exact", "infill_accuracy", "seconds_per_sample"),
    ),
    published={
        "G-Star-loop, 64": {"generative_perplexity": 17.8},
        "ReMDM-loop exact, eta 0.05, 64": {"generative_perplexity": 22.5},
    },
    comparable=("paper",),
    tolerance={"generative_perplexity": 2.0},
    plots=(
        quality("Sample quality against cost, error predictor included", "gigaflops"),
        plot("parses", "gigaflops", "parse_rate", "Samples that parse against cost, error predictor included"),
        frontier("Better text or sharper text: temperatures at one budget"),
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
    if variant == "paper":
        config.data.update(source="conala", tokenizer="gpt2", vocab_size=50257, length=128, packing="padded")
        config.model.dtype = "bfloat16"
        config.train.update(steps=20_000, batch=128, evaluate_every=1000, evaluate_batches=1, checkpoint_every=2000)
        config.sample.update(count=512, batch=64, nucleus=0.9, nucleus_rule="inclusive")
    elif variant == "local":
        python_bytes(config)
        config.sample.update(count=128, batch=128)
    else:
        python_source(config)
    if variant == "gpu":
        config.sample.count = 512
    config.judge.update(name="row", row="AR")
    config.quality.update(parse=True, mauve=variant in ("gpu", "local"))
    config.sample.final = "argmax" if variant == "paper" else "draw"
    return config


def rows(config):
    yield from references(config)
    yield evaluated(BASE)
    networks = {kind: predictor(config, kind) for kind in ("head", "block", "full")}
    for kind, overrides in networks.items():
        seeds = {"seeds": 1} if kind == "full" else {}
        yield dict(name=f"predictor, {kind}", overrides=overrides, verbs=("train",), **seeds)
    block, loop = predictor_cost(config, "block"), GUIDED["G-Star-loop"]
    # (sampler, its overrides, cost of one evaluation of its predictor)
    methods = {name: (name, PLAIN[name], 0.0) for name in SAMPLERS}
    methods["G-Star-loop"] = ("G-Star-loop", loop | networks["head"], 1.0)
    methods["G-Star-loop, one block"] = ("G-Star-loop", loop | networks["block"], block)
    others = {name: (name, PLAIN[name], 0.0) for name in OTHERS}
    others |= {name: (name, GUIDED[name] | networks["block"], block) for name in ("G-Star+", "P2, planner")}
    yield from at_budgets(config, methods, others)
    del methods["P2"]  # it generates a single token at any temperature
    yield from at_temperatures(config, methods)
    point, width = ABLATED[config.variant], 16 if config.variant != "debug" else 8
    for name, (method, overrides, share) in methods.items():
        settings = overrides | {"sample.steps": equal_steps(point, method, share), "sample.infill": width}
        yield sampled(f"{name}, {point}, gaps", settings, curves={})


def at_budgets(config, methods: dict, others: dict):
    """Samples by `methods` at every budget, and by `others` at one."""
    point = ABLATED[config.variant]
    for budget in BUDGETS[config.variant]:
        for name, (method, overrides, share) in (methods | (others if budget == point else {})).items():
            curves = {"quality": name, "parses": name} | ({"frontier": name} if budget == point else {})
            # P2 collapses here (see the notes), outside the range of the plots.
            curves = {} if name.startswith("P2") else curves
            yield sampled(f"{name}, {budget}", overrides, equal_steps(budget, method, share), curves=curves)


def at_temperatures(config, methods: dict):
    """Samples by `methods` at other temperatures."""
    point = ABLATED[config.variant]
    for budget in BUDGETS[config.variant]:
        for name, (method, overrides, share) in methods.items():
            steps = equal_steps(budget, method, share)
            # At other budgets a curve only needs to overlap with the predictor's.
            near = {"G-Star-loop, one block": (1.1,), "G-Star-loop": ()}.get(name, (0.9,))
            for temperature in TEMPERATURES if budget == point else near:
                settings = overrides | {"sample.steps": steps, "sample.temperature": temperature}
                curves = {"frontier": name} if budget == point else {}
                yield sampled(f"{name}, {budget}, temperature {temperature}", settings, curves=curves)
