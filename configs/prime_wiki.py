"""Prime's two objectives on a second data set: English Wikipedia articles of 2018 over 27 symbols (a-z and space).

Every variant but `debug` needs --config.data.path=FOLDER with the articles (source "enwiki2018"). Tokens are a byte
pair vocabulary of 4,096 trained on the text itself; `local` uses the 27 symbols, as prime_text:local uses bytes.
"""

from configs.base import defaults
from configs.recipes.prime import ALSO, COLUMNS, NOTES, comparison, plots
from configs.recipes.small import small, tiny
from configs.recipes.text import ALPHABET

DIGITS = {"paper": (2, 3, 4), "gpu": (2, 4), "local": (2, 4), "debug": (2,)}
TABLE = dict(
    title="MDM-Prime on 27-symbol Wikipedia: joint against marginal",
    columns=tuple(column for column in COLUMNS if column[0] not in ("parse_rate", "self_bleu")),
    published={},
    plots=plots(DIGITS["paper"]),
    notes=NOTES
    + (
        "Nobody publishes these numbers. Text is enwiki2018 in lower case, digits spelled out, everything but a-z a "
        "space, so that a byte is a character. `local` takes one seed, 1.4 million characters and a million parameters."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("prime_wiki", variant)
    if variant == "local":
        small(config)
        config.train.steps = 700
        config.evaluate.update(batches=12, draws=4)
        config.sample.update(count=32, batch=32)
        config.judge.batch = 32
    elif variant == "gpu":
        config.data.length = 256
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=300, decay="cosine", weight_decay=0.01)
        config.train.update(steps=5000, batch=128, ema=0.999, checkpoint_every=1000)
        config.train.update(evaluate_every=1000, evaluate_batches=4)
        config.evaluate.update(draws=8, batch=128)
        config.sample.update(count=64, batch=32)
    elif variant == "paper":
        config.data.length = 512
        config.model.update(dtype="bfloat16", remat="dots")
        config.train.update(steps=50_000, batch=256, evaluate_every=5000, evaluate_batches=2, checkpoint_every=5000)
        config.evaluate.update(draws=8, batch=128)
        config.sample.update(count=256, batch=64)
    if variant == "debug":
        tiny(config)
    else:
        config.data.update(source="enwiki2018", symbols27=True, vocab_size=4096)
    if variant == "local":
        config.data.update(tokenizer="characters", alphabet=ALPHABET, vocab_size=len(ALPHABET))
    config.judge.update(name="row", row="AR")
    config.evaluate.also = ALSO
    config.sample.final = "draw"
    return config


def rows(config):
    yield from comparison(config, DIGITS[config.variant])
