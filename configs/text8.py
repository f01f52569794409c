"""text8 (27 symbols, windows of 256 characters): bits per character of an AR baseline and of MDLM.

`paper` and `gpu` need --config.data.path=FOLDER with the 100 million characters of text8 (train 90 M, validation 5 M,
test 5 M). `local` trains a million parameters on the first 6.9 million characters ("text8_prefix", split 90/5/5), which
lie inside the official training part: its numbers compare rows of this table only.
"""

from configs.base import defaults
from configs.recipes.rows import evaluated
from configs.recipes.small import left_to_right, small, tiny
from configs.recipes.text import ALPHABET

TABLE = dict(
    title="text8: AR against MDLM",
    columns=(("bits_per_character", "bits/character (test)", ".3f"), ("perplexity", "perplexity", ".3f")),
    published={"AR": {"bits_per_character": 1.23}, "MDLM": {"bits_per_character": 1.40}},
    comparable=("paper",),
    tolerance={"bits_per_character": 0.02},
    notes=(
        "MDLM's figure is an upper bound, AR's is exact. Published figures are those of 12-layer networks of about 90 "
        "million parameters, as recalled from the literature, not checked: AR transformer 1.23, discrete flow 1.23, "
        "GenMD4 1.34, MD4 1.37, SEDD (absorbing) 1.39, AR argmax flow 1.39, MDLM 1.40, MAC 1.40, BFN 1.41, OA-ARDM "
        "1.43, UDLM 1.44, D3PM (absorbing) 1.45, SEDD (uniform) 1.47, Plaid 1.48, D3PM (uniform) 1.61, multinomial "
        "diffusion 1.72. `local` is text8-6.9M, of which xz -9e makes 2.06 bits per character."
    ),
)


def get_config(variant: str = "local"):
    config = defaults("text8", variant)
    if variant == "debug":
        return tiny(config)
    config.data.update(source="text8", tokenizer="characters", alphabet=ALPHABET, vocab_size=len(ALPHABET), length=256)
    if variant == "paper":
        config.model.update(dtype="bfloat16")
        config.train.update(evaluate_batches=8)
        config.evaluate.update(batch=512)
        config.sample.update(steps=1000, count=512, batch=256)
    elif variant == "gpu":
        config.model.update(hidden=512, blocks=8, heads=8, dtype="bfloat16")
        config.optimizer.update(learning_rate=1e-3, warmup=500, decay="cosine", floor=0.1)
        config.train.update(steps=10_000, batch=256, ema=0.999)
        config.train.update(evaluate_every=1000, evaluate_batches=8, checkpoint_every=2500)
        config.evaluate.update(batch=256)
        config.sample.update(steps=256, count=64)
    elif variant == "local":
        small(config)
        config.data.update(source="text8_prefix", vocab_size=len(ALPHABET))
        config.train.steps = 900
        config.evaluate.update(batches=16)
    return config


def rows(config):
    yield evaluated("AR", left_to_right(config))
    yield evaluated("MDLM")
