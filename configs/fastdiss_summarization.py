"""FastDiSS in summarization: headlines of Gigaword, by ROUGE.

`paper` and `gpu` read Gigaword from data.path; `local` and `debug` shorten too, numbers in words to their digits.
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

TABLE = dict(
    title="Summarization by embedding diffusion in few steps",
    columns=(*QUALITY["rouge"], QUALITY["bleu"], QUALITY["exact"], *COST),
    published={},
    figures=(("FastDiSS, ROUGE-1 (unverified)", {"MANS and SCP, 5 steps, 5 x 2, MBR": "35.3 [W]"}),),
    plots=(
        *plots("exact", "exact matches", numbers="Numbers in words to digits"),
        *plots("rouge1", "ROUGE-1", gigaword="Gigaword"),
    ),
    notes=NOTES
    + (
        " The published figure is unverified: [W] extracted by machine from a leaderboard, with unknown steps and "
        "candidates. Gigaword's sizes here are inferred from Difformer's for translation. ROUGE is F1 with Porter's "
        "stemmer, the best reference's."
    ),
)
FACTORS = dict(debug=3.0, local=3.0, gpu=4.0, paper=4.0)


def get_config(variant: str = "local"):
    config = pairs("fastdiss_summarization", variant)
    if variant in ("local", "debug"):
        config.data.update(source="number_words", vocab_size=44, source_length=26, length=14)
        return config
    accelerated(config, length=32, vocabulary=32_000)
    config.data.update(source="gigaword", source_length=96)
    config.encoder_decoder.positions = 96
    config.sample.translation.rouge = True
    if variant == "gpu":
        config.encoder_decoder.update(latent=64, hidden=256, encoder_blocks=3, decoder_blocks=3, heads=8)
        config.encoder_decoder.update(feed_forward=1024, dropout=0.1)
        config.optimizer.update(learning_rate=1e-3, warmup=1000, decay="cosine")
        config.train.update(steps=15_000, batch=256, ema=0.999, evaluate_every=3000, checkpoint_every=3000)
        return config
    # Difformer's network, with embeddings of unit length.
    config.encoder_decoder.update(DIFFORMER | dict(scale="unit", table_std=1.0, dropout=0.1))
    config.encoder_decoder.update(feed_forward=2048, heads=8)
    config.train.update(steps=300_000, batch=1024, ema=0.9999, evaluate_every=10_000, checkpoint_every=10_000)
    return config


def rows(config):
    factors = dict.fromkeys((*SIX, "SCP, fresh noise"), FACTORS[config.variant])
    if config.variant == "debug":
        yield from method_rows(("standard",), (1, 5), factors, "numbers")
        return
    if config.variant == "local":
        yield from method_rows(SIX, (1, 2, 5, 20), factors, "numbers")
        yield causal_row("numbers")
        return
    yield from method_rows(SIX, (1, 2, 5, 20), factors, "gigaword")
    yield from memory_rows(("standard",), factors)
    yield from best_rows("MANS and SCP", 5, factors, 5, 2)
    yield causal_row("gigaword")
    yield from joint_rows(config, (20, 2000), factors["standard"], "gigaword")
