"""Folders of jobs as runs leave them, without any computation, and the small table that they belong to."""

import json

from configs.recipes.small import tiny
from diffusion.storage import atomic_write
from experiments.plan import plan
from tests.small_configs import CAUSAL, judged_config
from tests.table_files import table_file

HISTORY = [{"step": 0, "loss": 6.0}, {"step": 10, "loss": 3.0}, {"step": 10, "validation_loss": 3.2}]
ORIGIN = dict(commit="0123456789ab", versions={"python": "3.11.7", "jax": "0.10"}, device_kind="cpu", device_count=1)
MODULE = table_file(
    TABLE=dict(
        title="A small table",
        columns=(("perplexity", "perplexity", ".2f"), ("seconds_per_sample", "s/sample", ".2f")),
        published={},
        plots=(dict(name="speed", x="seconds_per_sample", y="perplexity", title="t", xlabel="s", ylabel="p"),),
        notes="Some notes.",
    ),
    rows=lambda config: [
        dict(name="AR", overrides=CAUSAL, verbs=("evaluate",)),
        dict(name="MDLM, 4", overrides={"sample.steps": 4}, verbs=("sample",), curve="ancestral"),
        dict(name="MDLM, 8", overrides={"sample.steps": 8}, verbs=("sample",), curve="ancestral"),
    ],
)


def small_table(seeds=(0, 1)):
    """Return the config of the table with these seeds, and its jobs."""
    config = tiny(judged_config())
    config.seeds = seeds
    return config, plan(list(MODULE.rows(config)), config)


def result_of(job, **fields):
    """Return the result of a job with numbers of its own."""
    metrics = {"perplexity": 10.0 + job.seed, "seconds_per_sample": 0.5}
    if job.verb == "train":
        metrics = dict(validation_loss=3.25, bytes_per_token=2.0, validation_bytes_per_token=2.0)
    row = dict(job=job.id, verb=job.verb, row=job.row, seed=job.seed, config=job.config, metrics=metrics, data="d1")
    return row | dict(seconds=75.0) | ORIGIN | ({"history": HISTORY} if job.verb == "train" else {}) | fields


def finish(job, workdir, **fields):
    """Write the files of a job that is done, with these entries of its result."""
    begin(job, workdir)
    text = "one\n\n<script>alert(1)</script> & two"
    if job.verb == "sample":
        (job.folder(workdir) / "samples.txt").write_text(text)
    atomic_write(job.folder(workdir) / "result.json", json.dumps(result_of(job, **fields)))


def begin(job, workdir):
    """Write the files of a job that has begun."""
    atomic_write(job.folder(workdir) / "config.json", json.dumps(job.config))
    if job.verb == "train":
        lines = "".join(json.dumps(record) + "\n" for record in HISTORY)
        (job.folder(workdir) / "metrics.jsonl").write_text(lines)
