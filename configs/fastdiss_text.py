"""FastDiSS without a condition: text by embedding diffusion in few steps, beside masked diffusion.

The network of `fastdiss_translation`, whose source is the single token of an empty text. Data and judge are those of
the quickstart, whose AR and MDLM rows `local` and `debug` share. No paper reports these numbers.
"""

from configs.base import defaults
from configs.recipes.pairs import row
from configs.recipes.small import left_to_right
from configs.recipes.table import JUDGED, columns, held_out, quality, sampled
from configs.recipes.text import python_source

METHODS = ("standard", "MANS", "MANS and SCP", "random shift")
STEPS = {"paper": (5, 20, 100, 1000), "gpu": (5, 20, 100), "local": (5, 20, 100), "debug": (2,)}
FACTOR = 4.0
TABLE = dict(
    title="Text by embedding diffusion in few steps, without a condition",
    columns=columns("evaluations", JUDGED, "entropy", "diversity", "parse_rate", "seconds_per_sample"),
    published={},
    plots=(quality(ylabel="perplexity under the AR judge"),),
    notes=(
        "Methods as in the table of translation: SCP and MANS with gap, coupling, map and strength inferred, 'random "
        f"shift' as their control; F is {FACTOR:g} for all, not tuned. Embedding diffusion rounds its last estimate "
        "and draws nothing, so that all chance is in the noise at the start. A perplexity counts only beside its "
        "entropy."
    ),
)


# Embedding diffusion of text, as a change of the quickstart's masked diffusion.
EMBEDDING = {
    "model.net": "encoder_decoder",
    "objective.name": "embedding",
    "process.schedule": "sigma_is_time",
    "process.prediction": "clean",
    "sample.policy": "embedding",
    "sample.final": "none",
}


def get_config(variant: str = "local"):
    config = defaults("fastdiss_text", variant)
    python_source(config)
    model = config.model
    config.encoder_decoder.update(hidden=model.hidden, decoder_blocks=model.blocks, heads=model.heads)
    config.encoder_decoder.update(encoder_blocks=1, feed_forward=4 * model.hidden, positions=config.data.length)
    config.encoder_decoder.update(latent=min(64, model.hidden), dropout=model.dropout)
    return config


def rows(config):
    yield held_out()
    yield sampled("AR", left_to_right(config))
    for count in STEPS[config.variant]:
        yield sampled(f"MDLM, {count} step{'s' if count > 1 else ''}", {}, count, curve="MDLM")
    for method in METHODS[:1] if config.variant == "debug" else METHODS:
        for count in STEPS[config.variant]:
            each = row(f"{method}, {count} steps", method, count, FACTOR, shared=EMBEDDING)
            del each["curves"]
            yield each | {"curve": method}
