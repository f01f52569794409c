"""A table of two small networks on a text of one file, whose commands take little time."""

from configs.base import defaults
from configs.recipes.small import tiny
from configs.recipes.table import JUDGED, columns

CAUSAL = {"objective.name": "autoregressive", "model.causal": True, "model.adaln": False}
TABLE = dict(
    title="A small table",
    columns=columns(("bits_per_byte", "bits/byte", ".3f"), "evaluations", JUDGED, "seconds_per_sample"),
    published={},
    plots=(dict(name="speed", x="seconds_per_sample", y="generative_perplexity", title="t", xlabel="s", ylabel="p"),),
    notes="Some notes.",
)


def get_config(variant="local"):
    config = tiny(defaults("small", variant))
    config.model.update(hidden=16, blocks=1, heads=2, cond_dim=8)
    config.data.update(source="text_files", path="text.txt", document="line", tokenizer="bytes", length=16)
    config.judge.update(name="row", row="AR")
    return config


def rows(config):
    yield dict(name="Text", overrides={"sample.policy": "data"}, verbs=("sample",))
    yield dict(name="AR", overrides=CAUSAL, verbs=("evaluate", "sample"))
    yield dict(name="MDLM, 4 steps", overrides={"sample.steps": 4}, verbs=("evaluate", "sample"), curve="ancestral")
    yield dict(name="MDLM, 8 steps", overrides={"sample.steps": 8}, verbs=("sample",), curve="ancestral")
