"""FastDiSS in paraphrasing and simplification: QQP and Wiki-Auto, with ROUGE beside BLEU.

`paper` and `gpu` read DiffuSeq's releases from folders `qqp` and `wiki_auto` below data.path; `local` and `debug` say
the same thing in other words by the harder dialects, in which order changes too.
"""

from configs.seq2seq import (
    COST,
    NOTES,
    QUALITY,
    SIX,
    accelerated,
    best_rows,
    causal_row,
    joint_rows,
    memory_rows,
    method_rows,
    pairs,
    plots,
)
from diffusion.nets.encoder_decoder import DIFFORMER

QQP, WIKI = "QQP: ", "Wiki-Auto: "
TABLE = dict(
    title="Paraphrasing by embedding diffusion in few steps",
    columns=(QUALITY["bleu"], QUALITY["chrf"], *QUALITY["rouge"], QUALITY["exact"], *COST),
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
    plots=plots("bleu", "BLEU", dialects="Harder dialects", qqp="QQP", wiki_auto="Wiki-Auto"),
    notes=NOTES
    + (
        " Published figures are unverified: [W] extracted by machine from a leaderboard, with unknown steps and "
        "candidates, [C] from the README of Difformer's code, 10 candidates ranked by a Transformer. They are no "
        "measure of rows here. ROUGE is F1 with Porter's stemmer, the best reference's. No BERTScore is measured."
    ),
)
FACTORS = dict(debug=3.0, local=3.0, gpu=4.0, paper=4.0)
WIKI_AUTO = {"data.source": "wiki_auto", "train.steps": 30_000, "train.batch": 2048}


def get_config(variant: str = "local"):
    config = pairs("fastdiss_paraphrase", variant)
    if variant in ("local", "debug"):
        config.data.source = "dialects_reversed"
        return config
    accelerated(config, length=64, vocabulary=16_000)
    config.data.update(source="qqp", lower=True)
    config.sample.translation.rouge = True
    if variant == "gpu":
        config.encoder_decoder.update(latent=64, hidden=256, encoder_blocks=3, decoder_blocks=3, heads=8)
        config.encoder_decoder.update(feed_forward=1024, dropout=0.1)
        config.optimizer.update(learning_rate=1e-3, warmup=1000, decay="cosine")
        config.train.update(steps=15_000, batch=256, ema=0.999, evaluate_every=3000, checkpoint_every=3000)
        return config
    # Difformer's network, with embeddings of unit length.
    config.encoder_decoder.update(DIFFORMER | dict(scale="unit", table_std=1.0, dropout=0.1))
    config.encoder_decoder.update(hidden=768, feed_forward=3072, heads=12)
    config.train.update(steps=50_000, batch=512, ema=0.9999, evaluate_every=5000, checkpoint_every=5000)
    return config


def rows(config):
    factors = dict.fromkeys((*SIX, "SCP, fresh noise"), FACTORS[config.variant])
    if config.variant == "debug":
        yield from method_rows(("standard",), (1, 5), factors, "dialects")
        return
    if config.variant == "local":
        yield from method_rows(SIX, (1, 2, 5, 20), factors, "dialects")
        yield from best_rows("MANS and SCP", 5, factors, 1, 5)
        yield causal_row("dialects")
        yield from joint_rows(config, (20,), factors["standard"], "dialects")
        return
    sets = [("qqp", QQP, {})] + ([("wiki_auto", WIKI, WIKI_AUTO)] if config.variant == "paper" else [])
    for plot, prefix, shared in sets:
        yield from method_rows(SIX, (1, 2, 5, 20), factors, plot, prefix, shared)
        yield from memory_rows(("standard",), factors, prefix, shared)
        yield from best_rows("MANS and SCP", 5, factors, 5, 2, prefix, shared)
        yield causal_row(plot, prefix, shared)
        yield from joint_rows(config, (20, 2000), factors["standard"], plot, prefix, shared)
