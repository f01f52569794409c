"""FastDiSS in summarization: headlines of Gigaword, by ROUGE.

`paper` and `gpu` read Gigaword from data.path; `local` and `debug` shorten numbers in words to digits.
"""

from configs.recipes import pairs

TABLE = dict(
    title="Summarization by embedding diffusion in few steps",
    columns=pairs.columns("rouge", "bleu", "exact"),
    published={},
    figures=(("FastDiSS, ROUGE-1 (unverified)", {"MANS and SCP, 5 steps, 5 x 2, MBR": "35.3 [W]"}),),
    plots=(
        *pairs.plots("exact", "exact matches", numbers="Numbers in words to digits"),
        *pairs.plots("rouge1", "ROUGE-1", gigaword="Gigaword"),
    ),
    notes=pairs.NOTES
    + (
        " The published figure is unverified: [W] extracted by machine from a leaderboard, with unknown steps and "
        "candidates. Gigaword's sizes here are inferred from Difformer's for translation. ROUGE is F1 with Porter's "
        "stemmer, the best reference's."
    ),
)
FACTORS = dict(debug=3.0, local=3.0, gpu=4.0, paper=4.0)


def get_config(variant: str = "local"):
    config = pairs.pairs("fastdiss_summarization", variant)
    if variant in ("local", "debug"):
        config.data.update(source="number_words", vocab_size=44, source_length=26, length=14)
        return config
    pairs.accelerated(config, length=32, vocabulary=32_000)
    config.data.update(source="gigaword", source_length=96)
    config.encoder_decoder.positions = 96
    config.sample.translation.rouge = True
    if variant == "gpu":
        return pairs.one_accelerator(config, 15_000, 3000)
    return pairs.published(config, 300_000, 1024, 10_000, dropout=0.1, feed_forward=2048, heads=8)


def rows(config):
    factors = pairs.factors(config.variant, FACTORS)
    if config.variant == "debug":
        yield from pairs.method_rows(("standard",), (1, 5), factors, "numbers")
        return
    if config.variant == "local":
        yield from pairs.method_rows(pairs.SIX, (1, 2, 5, 20), factors, "numbers")
        yield pairs.causal_row("numbers")
        return
    yield from pairs.dataset_rows(config, factors, "gigaword")
