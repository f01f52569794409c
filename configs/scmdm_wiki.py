"""SCMDM on a second text: English Wikipedia articles of 2018 over 27 symbols (a-z and space).

Every variant but `debug` needs --config.data.path=FOLDER with the articles (source "enwiki2018"). The rows are those of
`configs/scmdm_text.py` without the partial rates, the control of equal FLOPs and the longest sampler of `local`;
`paper` keeps GPT-2's tokens.
"""

from configs import scmdm_text
from configs.base import defaults
from configs.mdlm_owt import openwebtext, wikipedia
from configs.prime_wiki import ALPHABET
from configs.recipes import scmdm
from configs.recipes.small import small, tiny

LEFT_OUT = ("lambda 0.5", "lambda 0.9", "same FLOPs", "1024 steps")
TABLE = dict(
    title="SCMDM on Wikipedia: self-conditioning after training",
    columns=tuple(column for column in scmdm_text.COLUMNS if column[0] != "parse_rate"),
    published={},
    plots=scmdm_text.TABLE["plots"],
    notes=scmdm.NOTES + " Nobody publishes these numbers. `local` reads 27 symbols, so that a byte is a character.",
)


def get_config(variant: str = "local"):
    config = defaults("scmdm_wiki", variant)
    config.judge.update(name="row", row="AR")
    config.quality.mauve = variant != "debug"
    config.sample.final = "draw"
    if variant == "debug":
        return tiny(config)
    if variant == "local":
        small(config)
        config.data.update(symbols27=True, tokenizer="characters", alphabet=ALPHABET, vocab_size=len(ALPHABET))
        config.train.update(steps=2500, evaluate_every=500, checkpoint_every=500)
        config.evaluate.update(batches=12, draws=4)
        config.sample.update(count=64, batch=64)
    elif variant == "gpu":
        wikipedia(config)
    else:
        openwebtext(config)
        config.judge.update(name="gpt2", row="")
        config.sample.count = 1024
    config.data.source = "enwiki2018"
    return config


def rows(config):
    for row in scmdm_text.rows(config):
        if not any(part in row["name"] for part in LEFT_OUT):
            yield row
