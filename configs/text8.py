"""text8 (27 symbols, windows of 256 characters): bits per character of an AR baseline and of MDLM.

`paper` and `gpu` need --config.data.path=FOLDER with the 100 million characters of text8 (train 90 M, validation 5 M,
test 5 M). `local` trains a million parameters on the first 6.9 million characters ("text8_prefix", split 90/5/5), which
lie inside the official training part: its numbers compare rows of this table only.
"""

from configs.base import defaults
from configs.recipes.small import left_to_right
from configs.recipes.table import evaluated
from configs.recipes.text import text8

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
    text8(config)
    return config


def rows(config):
    yield evaluated("AR", left_to_right(config))
    yield evaluated("MDLM")
