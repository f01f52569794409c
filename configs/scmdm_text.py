"""SCMDM on text: a trained MDLM is trained further with its own prediction as input, beside its controls.

`paper` is the recipe on OpenWebText (needs --config.data.path and --config.data.tokenizer_path): it starts from a
converted public MDLM checkpoint given with --config.checkpoint=FOLDER, or from the table's own base row. `gpu` is the
same at a smaller size on English Wikipedia articles of 2018, `local` on bytes of the standard library's sources
(`configs/scmdm_wiki.py` is Wikipedia at every scale). Generative perplexity also falls when samples lose entropy.
Models are therefore sampled at several temperatures, and only a point off the curve of perplexity against entropy is a
gain.
"""

from configs.recipes.scmdm import BASE, FULL, NOTES, TEXT_COLUMNS, TEXT_PLOTS, text_rows
from configs.recipes.text import judged
from configs.recipes.zero_shot import score_zero_shot

ZERO_SHOT = {
    BASE: (101.71, 37.82, 50.04, 70.60, 44.45, 39.14),
    FULL: (99.13, 36.48, 49.09, 68.13, 41.72, 37.75),
}
SETS = ("ptb", "wikitext", "lambada", "ag_news", "pubmed", "arxiv")

TABLE = dict(
    title="SCMDM on text: self-conditioning after training, and its controls",
    columns=(*TEXT_COLUMNS, *((f"{name}_perplexity", name, ".2f") for name in SETS)),
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
    plots=TEXT_PLOTS,
    notes=(
        "Of the published figures the sampler's precision, its number of samples and whether the base was trained on "
        "are unknown, so the low-precision rows stand beside the exact ones. The zero-shot figures of the MDLM row "
        "belong to the paper's own base. MAUVE at local scale rests on few samples and compares rows of this table "
        "alone. " + NOTES
    ),
)


def get_config(variant: str = "local"):
    config = judged("scmdm_text", variant)
    config.quality.parse = variant in ("local", "debug")
    config.sample.final = "draw"
    if variant == "paper":
        score_zero_shot(config, required=False)
        config.sample.final = "argmax"
    return config


def rows(config):
    yield from text_rows(config)
