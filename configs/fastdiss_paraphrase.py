"""FastDiSS in paraphrasing and simplification: QQP and Wiki-Auto, with ROUGE beside BLEU.

`paper` and `gpu` read the releases of DiffuSeq from folders `qqp` and `wiki_auto` in data.path; `local` and `debug`
rephrase with the harder dialects, which also change the order of words.
"""

from configs.recipes import pairs

QQP, WIKI = "QQP: ", "Wiki-Auto: "
TABLE = dict(
    title="Paraphrasing by embedding diffusion in few steps",
    columns=pairs.columns("bleu", "chrf", "rouge", "bertscore", "exact"),
    published={},
    figures=(
        (
            "FastDiSS, BLEU (unverified)",
            {
                f"{QQP}MANS and SCP, 5 steps, 5 x 2, MBR": "28.88 [W]",
                f"{WIKI}MANS and SCP, 5 steps, 5 x 2, MBR": "40.9 [W]",
            },
        ),
        (
            "Difformer, BLEU / ROUGE-L",
            {f"{QQP}standard, 20 steps": "30.43 / 61.25 [C]", f"{WIKI}standard, 20 steps": "40.77 / 59.86 [C]"},
        ),
    ),
    plots=pairs.plots("bleu", "BLEU", dialects="Harder dialects", qqp="QQP", wiki_auto="Wiki-Auto"),
    notes=pairs.NOTES
    + (
        " Published figures are unverified: [W] extracted by machine from a leaderboard, with unknown steps and "
        "candidates, [C] from the README of Difformer's code, 10 candidates ranked by a Transformer. They are no "
        "measure of rows here. ROUGE is F1 with Porter's stemmer, the best reference's. BERTScore is measured where "
        "sample.translation.bertscore names a folder of its model, and bert-score is installed."
    ),
)
FACTORS = dict(debug=3.0, local=2.0, gpu=4.0, paper=4.0)
WIKI_AUTO = {"data.source": "wiki_auto", "train.steps": 30_000, "train.batch": 2048}


def get_config(variant: str = "local"):
    config = pairs.pairs("fastdiss_paraphrase", variant)
    if variant in ("local", "debug"):
        config.data.source = "dialects_reversed"
        return config
    pairs.accelerated(config, length=64, vocabulary=16_000)
    config.data.update(source="qqp", lower=True)
    config.sample.translation.rouge = True
    if variant == "gpu":
        return pairs.one_accelerator(config, 15_000, 3000)
    return pairs.published(config, 50_000, 512, 5000, dropout=0.1, hidden=768, feed_forward=3072, heads=12)


def rows(config):
    factors = pairs.factors(config.variant, FACTORS)
    if config.variant == "debug":
        yield from pairs.method_rows(("standard",), (1, 5), factors, "dialects")
        return
    if config.variant == "local":
        yield from pairs.method_rows(pairs.SIX, (1, 2, 5, 20), factors, "dialects")
        yield from pairs.best_rows("MANS and SCP", 5, factors, 1, 5)
        yield pairs.causal_row("dialects")
        yield from pairs.joint_rows(config, (20,), factors["standard"], "dialects")
        return
    sets = [("qqp", QQP, {})] + ([("wiki_auto", WIKI, WIKI_AUTO)] if config.variant == "paper" else [])
    for plot, prefix, shared in sets:
        yield from pairs.dataset_rows(config, factors, plot, prefix, shared)
