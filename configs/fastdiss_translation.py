"""FastDiSS in translation: few steps against many, with perturbed self-conditioning and noise scaled by confidence.

`local` and `debug` are dialects, a synthetic task in which words must agree with one another. With the files of Tatoeba
(--config.data.path=FOLDER) `local` has English to German too, which `gpu` trains at a better size. `paper` has the
recipes of the public code of Difformer and DINOISER for IWSLT14 German-English and WMT14 English-German, from folders
`iwslt14` and `wmt14` in data.path.
"""

from typing import Any

from configs.recipes import pairs
from configs.recipes.pairs import TATOEBA, TATOEBA_PREFIX

IWSLT, WMT = "IWSLT14: ", "WMT14: "
TATOEBA_METHODS = ("standard", "MANS and SCP", "random shift, same mean")
TABLE = dict(
    title="Translation by embedding diffusion in few steps",
    columns=pairs.columns("bleu", "chrf", "exact"),
    published={},
    figures=(
        (
            "FastDiSS, BLEU (unverified)",
            {
                f"{IWSLT}standard, 5 steps": "27.85 [N]",
                f"{IWSLT}standard, 5 steps, recompute": "29.70 [N]",
                f"{IWSLT}MANS and SCP, 5 steps": "29.70 [N]",
                f"{IWSLT}MANS and SCP, 5 steps, 7 x 3, MBR": "32.88 [W]",
                f"{WMT}MANS and SCP, 5 steps, 7 x 3, MBR": "24.69 [W]",
            },
        ),
        ("Difformer, sacreBLEU", {f"{IWSLT}Base-D, 20 steps": "33.5 [C]", f"{WMT}Base-D, 20 steps": "26.2 [C]"}),
    ),
    plots=pairs.plots(
        "bleu",
        "BLEU",
        dialects="Dialects",
        own="Pairs of data.path",
        tatoeba="Tatoeba, English to German",
        iwslt14="IWSLT14, German to English",
        wmt14="WMT14, English to German",
    )
    + pairs.courses("dialects", "Dialects, 20 steps", pairs.SEVEN)
    + pairs.courses("tatoeba", "Tatoeba, 20 steps", TATOEBA_METHODS, prefix=TATOEBA_PREFIX)
    + pairs.courses("iwslt14", "IWSLT14, 20 steps", pairs.SIX, prefix=IWSLT),
    notes=pairs.NOTES
    + (
        " Published figures are unverified: [N] from third-party notes on the paper (the two figures of 29.70 may be "
        "one row taken for the other), [W] extracted by machine from a leaderboard, with unknown steps and candidates, "
        "[C] from the README of Difformer's code: distilled training data, 21 candidates, ranked by a Transformer. "
        "They are no measure of rows here, which are trained without distillation."
    ),
)
FACTORS = dict(debug=3.0, local=2.0, gpu=3.0, paper=4.0)
FEW = (1, 2, 3, 5, 10, 20)
# The best F in 1.5 .. 6 for each of the three after 2,000 steps (`fastdiss_ablations`).
TATOEBA_BEST = dict.fromkeys(TATOEBA_METHODS, 6.0)
WMT14 = {
    "data.source": "wmt14",
    "data.vocab_size": 32_000,
    "data.lower": False,
    "encoder_decoder.feed_forward": 2048,
    "encoder_decoder.heads": 8,
    "encoder_decoder.dropout": 0.1,
    "train.batch": 2048,
    "train.accumulate": 2,  # not published; 16 TPU v5e chips hold no step of the whole batch
    "sample.translation.tokenize": "intl",
}
# The published bases, with their own embeddings, schedules and samplers.
BASE_D = pairs.fields("encoder_decoder", pairs.DIFFORMER) | {
    "process.schedule": "sqrt_chain",
    "sample.translation.path": "spaced",
    "sample.translation.solver": "ancestral",
}
BASE_N = pairs.fields("encoder_decoder", pairs.DINOISER) | {
    "embedding.alternate": "sum",
    "embedding.memory_rate": 1.0,
    "embedding.rounding": "round",
    "embedding.floor": "clipped",
    "embedding.length_weight": 0.1,
    "sample.translation.path": "cedi",
}


def get_config(variant: str = "local"):
    config = pairs.translation("fastdiss_translation", variant, FACTORS["paper"])
    if variant == "local":
        config.seeds = tuple(range(5))
    return config


def rows(config):
    # The first row is what verbs use when no row is named: the method itself, at few steps.
    prefix = IWSLT if config.variant == "paper" and config.data.source != "pair_files" else ""
    return sorted(all_rows(config), key=lambda each: each["name"] != f"{prefix}MANS and SCP, 5 steps")


def all_rows(config):
    """The rows of a scale."""
    factors, own = pairs.factors(config.variant, FACTORS), config.data.source == "pair_files"
    plot = "own" if own else {"gpu": "tatoeba", "paper": "iwslt14"}.get(config.variant, "dialects")
    if config.variant == "debug":
        # Two trainings: the smallest table tests all of its parts.
        yield from pairs.method_rows(("MANS and SCP",), (5,), factors, plot)
        yield from pairs.best_rows("MANS and SCP", 3, factors, 3, 2)
        yield pairs.causal_row(plot)
        return
    if config.variant == "local" and own:
        yield from few_rows(TATOEBA_METHODS, factors, plot)
        return
    if config.variant == "local":
        yield from ({"seeds": 3} | each for each in dialect_rows(config, factors))
        if config.data.path:
            tatoeba: dict[str, Any] = dict(prefix=TATOEBA_PREFIX, shared=TATOEBA)
            yield from ({"seeds": 3} | each for each in few_rows(TATOEBA_METHODS, TATOEBA_BEST, "tatoeba", **tatoeba))
        return
    both: dict[str, Any] = dict(memory=("standard", "MANS and SCP"))
    if config.variant == "gpu":
        yield from pairs.dataset_rows(config, factors, plot, steps=pairs.STEPS, joint=(20, 100), **both)
        return
    both["candidates"] = (7, 3)
    yield from pairs.dataset_rows(config, factors, plot, "" if own else IWSLT, steps=pairs.STEPS, **both)
    if own:
        return
    wmt, methods = dict.fromkeys(pairs.METHODS, 3.5), ("standard", "MANS and SCP", "random shift")
    yield from pairs.dataset_rows(config, wmt, "wmt14", WMT, WMT14, methods, (5, 20), **both)
    yield from base_rows()


def base_rows():
    """The published bases on both data sets of the scale `paper`."""
    for prefix, shared, factor, floor in ((IWSLT, {}, 4.0, "clipped"), (WMT, WMT14, 3.5, "clipped_s")):
        sizes = {name: value for name, value in shared.items() if name.startswith("encoder_decoder.")}
        yield pairs.row(f"{prefix}Base-D, 20 steps", "standard", 20, factor, shared=shared | BASE_D | sizes)
        base = shared | BASE_N | sizes | {"embedding.floor": floor, "encoder_decoder.latent": 64 if shared else 16}
        yield pairs.row(f"{prefix}Base-N, 20 steps", "standard", 20, 1.0, shared=base)


def dialect_rows(config, factors):
    """The synthetic task: every method by number of steps, the base with many; controls and other models with few."""
    # The path is that of Tatoeba; the synthetic task needs none.
    no_path = {"data.path": ""}
    yield from pairs.method_rows(pairs.SEVEN, FEW, factors, "dialects", shared=no_path)
    yield from pairs.method_rows(("standard", "MANS and SCP"), (100,), factors, "dialects", shared=no_path)
    yield from pairs.method_rows(("standard",), (1000,), factors, "dialects", shared=no_path)
    yield from pairs.method_rows(("SCP, Markov noise",), (5, 20), factors, "dialects", shared=no_path)
    yield from pairs.memory_rows(("standard", "MANS and SCP"), factors, shared=no_path)
    yield from pairs.best_rows("MANS and SCP", 5, factors, 3, 3, shared=no_path)
    yield pairs.causal_row("dialects", shared=no_path)
    for each in pairs.joint_rows(config, (20, 100), factors["standard"], "dialects", shared=no_path):
        yield each | {"seeds": 1}


def few_rows(methods, factors, plot: str, **shared):
    """Files at a size that a CPU can train: the method, its base, and the control."""
    for each in pairs.method_rows(methods, FEW, factors, plot, **shared):
        # The difference of the two is small compared with the spread over seeds.
        yield each if "random" in each["name"] else each | {"seeds": 5}
    yield from pairs.method_rows(("standard",), (100,), factors, plot, **shared)
    yield from pairs.best_rows("MANS and SCP", 5, factors, 5, 2, **shared)
    yield pairs.causal_row(plot, **shared) | {"seeds": 1}
