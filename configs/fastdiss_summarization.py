"""FastDiSS in summarization: headlines of Gigaword, by ROUGE.

`paper` and `gpu` read Gigaword from data.path; `local` and `debug` shorten too, numbers in words to their digits.
"""

from configs import seq2seq

TABLE = dict(
    title="Summarization by embedding diffusion in few steps",
    columns=seq2seq.columns("rouge", "bleu", "exact"),
    published={},
    figures=(("FastDiSS, ROUGE-1 (unverified)", {"MANS and SCP, 5 steps, 5 x 2, MBR": "35.3 [W]"}),),
    plots=(
        *seq2seq.plots("exact", "exact matches", numbers="Numbers in words to digits"),
        *seq2seq.plots("rouge1", "ROUGE-1", gigaword="Gigaword"),
    ),
    notes=seq2seq.NOTES
    + (
        " The published figure is unverified: [W] extracted by machine from a leaderboard, with unknown steps and "
        "candidates. Gigaword's sizes here are inferred from Difformer's for translation. ROUGE is F1 with Porter's "
        "stemmer, the best reference's."
    ),
)
FACTORS = dict(debug=3.0, local=3.0, gpu=4.0, paper=4.0)


def get_config(variant: str = "local"):
    config = seq2seq.pairs("fastdiss_summarization", variant)
    if variant in ("local", "debug"):
        config.data.update(source="number_words", vocab_size=44, source_length=26, length=14)
        return config
    seq2seq.accelerated(config, length=32, vocabulary=32_000)
    config.data.update(source="gigaword", source_length=96)
    config.encoder_decoder.positions = 96
    config.sample.translation.rouge = True
    if variant == "gpu":
        return seq2seq.one_accelerator(config, 15_000, 3000)
    return seq2seq.published(config, 300_000, 1024, 10_000, dropout=0.1, feed_forward=2048, heads=8)


def rows(config):
    factors = seq2seq.factors(config.variant, FACTORS)
    if config.variant == "debug":
        yield from seq2seq.method_rows(("standard",), (1, 5), factors, "numbers")
        return
    if config.variant == "local":
        yield from seq2seq.method_rows(seq2seq.SIX, (1, 2, 5, 20), factors, "numbers")
        yield seq2seq.causal_row("numbers")
        return
    yield from seq2seq.method_rows(seq2seq.SIX, (1, 2, 5, 20), factors, "gigaword")
    yield from seq2seq.memory_rows(("standard",), factors)
    yield from seq2seq.best_rows("MANS and SCP", 5, factors, 5, 2)
    yield seq2seq.causal_row("gigaword")
    yield from seq2seq.joint_rows(config, (20, 2000), factors["standard"], "gigaword")
