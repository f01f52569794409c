"""FastDiSS without a condition: text by embedding diffusion in few steps, beside masked diffusion.

The network of `fastdiss_translation`, which reads for a source the one token that no text has. Data, and the judge, are
the quickstart's, with which `local` and `debug` share AR and MDLM. No paper prints these numbers.
"""

from configs import quickstart
from configs.recipes import pairs

METHODS = ("standard", "MANS", "MANS and SCP", "random shift")
STEPS = {"paper": (5, 20, 100, 1000), "gpu": (5, 20, 100), "local": (5, 20, 100), "debug": (2,)}
FACTOR = 4.0
TABLE = dict(
    title="Text by embedding diffusion in few steps, without a condition",
    columns=tuple(column for column in quickstart.TABLE["columns"] if column[0] != "bits_per_byte"),
    published={},
    plots=quickstart.TABLE["plots"],
    notes=(
        "Methods as in the table of translation: SCP and MANS with gap, coupling, map and strength inferred, 'random "
        f"shift' as their control; F is {FACTOR:g} for all, not tuned. Embedding diffusion rounds its last estimate "
        "and draws nothing, so that all chance is in the noise at the start. A perplexity counts only beside its "
        "entropy."
    ),
)


def get_config(variant: str = "local"):
    config = quickstart.get_config(variant)
    config.table, config.seeds = "fastdiss_text", (0,)
    model = config.model
    config.encoder_decoder.update(hidden=model.hidden, decoder_blocks=model.blocks, heads=model.heads)
    config.encoder_decoder.update(encoder_blocks=1, feed_forward=4 * model.hidden, positions=config.data.length)
    config.encoder_decoder.update(latent=min(64, model.hidden), dropout=model.dropout)
    return config


def rows(config):
    yield dict(name="Held-out text", overrides={"sample.policy": "data"}, verbs=("sample",))
    yield dict(name=pairs.AR, overrides=quickstart.left_to_right(config), verbs=("sample",))
    for count in STEPS[config.variant]:
        yield dict(
            name=f"MDLM, {count} step{'s' if count > 1 else ''}",
            overrides={"sample.steps": count},
            verbs=("sample",),
            curve="MDLM",
        )
    text = {
        "model.net": "encoder_decoder",
        "objective.name": "embedding",
        "process.schedule": "sigma_is_time",
        "process.prediction": "clean",
        "sample.policy": "embedding",
        "sample.final": "none",
    }
    for method in METHODS[:1] if config.variant == "debug" else METHODS:
        for count in STEPS[config.variant]:
            each = pairs.row(f"{method}, {count} steps", method, count, FACTOR, shared=text)
            yield {name: each[name] for name in ("name", "overrides", "verbs")} | {"curve": method}
