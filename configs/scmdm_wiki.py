"""SCMDM on a second text: English Wikipedia articles of 2018 over 27 symbols (a-z and space).

Every variant but `debug` needs --config.data.path=FOLDER with the articles (source "enwiki2018"). The rows are those of
`configs/scmdm_text.py` without the partial rates, the control of equal FLOPs and the longest sampler of `local`;
`paper` keeps GPT-2's tokens.
"""

from configs.recipes.scmdm import NOTES, TEXT_COLUMNS, TEXT_PLOTS, text_rows
from configs.recipes.small import small
from configs.recipes.text import ALPHABET, judged

LEFT_OUT = ("lambda 0.5", "lambda 0.9", "same FLOPs", "1024 steps")
TABLE = dict(
    title="SCMDM on Wikipedia: self-conditioning after training",
    columns=tuple(column for column in TEXT_COLUMNS if column[0] != "parse_rate"),
    published={},
    plots=TEXT_PLOTS,
    notes=NOTES + " Nobody publishes these numbers. `local` reads 27 symbols, so that a byte is a character.",
)


def symbols(config) -> None:
    """The local scale: articles over 27 symbols."""
    small(config)
    config.data.update(symbols27=True, tokenizer="characters", alphabet=ALPHABET, vocab_size=len(ALPHABET))
    config.train.update(steps=2500, evaluate_every=500, checkpoint_every=500)
    config.evaluate.update(batches=12, draws=4)


def get_config(variant: str = "local"):
    config = judged("scmdm_wiki", variant, local=symbols)
    config.sample.final = "draw"
    if variant != "debug":
        config.data.source = "enwiki2018"
    return config


def rows(config):
    for row in text_rows(config):
        if not any(part in row["name"] for part in LEFT_OUT):
            yield row
