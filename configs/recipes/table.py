"""Rows, columns and plots that several tables share, with the label of each metric."""

from configs.base import GAUSSIAN

# Metric: column label, format, and axis label where the metric is an axis of a plot.
METRICS = {
    "bits_per_byte": ("bits/byte", ".3f", ""),
    "perplexity": ("perplexity", ".2f", ""),
    "evaluations": ("NFE", ".0f", "denoiser evaluations per sample (NFE)"),
    "predictor_evaluations": ("predictor", ".0f", ""),
    "gigaflops": ("GFLOP", ".2f", "GFLOP per sample"),
    "generative_perplexity": ("gen. perplexity", ".2f", "perplexity under the judge"),
    "entropy": ("entropy (nats)", ".3f", "entropy of a sample's tokens (nats)"),
    "diversity": ("diversity", ".3f", ""),
    "mauve": ("MAUVE", ".3f", ""),
    "parse_rate": ("parses", ".3f", "share of samples that parse"),
    "defined_rate": ("names defined", ".3f", ""),
    "self_bleu": ("self-BLEU", ".3f", ""),
    "infill_exact": ("gaps exact", ".3f", ""),
    "infill_accuracy": ("gaps' tokens", ".3f", ""),
    "idle_share": ("idle steps", ".2%", ""),
    "joint_ce/nats_per_token": ("joint_ce (nats/token, no likelihood)", ".3f", ""),
    "bound_grouped/nats_per_token": ("grouped bound (nats/token)", ".3f", ""),
    "fid": ("FID", ".2f", ""),
    "inception_score": ("Inception Score", ".2f", ""),
    "inception_score_deviation": ("Inception Score, deviation", ".2f", ""),
    "classifier_frechet": (
        "Fréchet distance (classifier trained here)",
        ".2f",
        "Fréchet distance in a classifier's features",
    ),
    "confidence": ("classifier's confidence", ".3f", ""),
    "class_entropy": ("evenness of classes", ".3f", ""),
    "samples": ("samples per set", ".0f", ""),
    "seconds_per_sample": ("s/sample", ".3f", "seconds per sample"),
}


# Tasks of GenEval, with their labels.
GENEVAL_TASKS = {
    "single_object": "single object",
    "two_object": "two objects",
    "counting": "counting",
    "colors": "colors",
    "position": "position",
    "color_attr": "attribution",
}
# Measures of sampled text.
TEXT = ("generative_perplexity", "entropy", "diversity")
# Generative perplexity where the judge is always the row AR.
JUDGED = ("generative_perplexity", "gen. perplexity (AR judge)", ".1f")


def columns(*metrics: str | tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
    """Columns of a table: metrics by name, or (metric, label, format) where a table has its own."""
    return tuple((each, *METRICS[each][:2]) if isinstance(each, str) else each for each in metrics)


def geneval_columns(overall: str) -> tuple[tuple[str, str, str], ...]:
    """GenEval's overall score, labelled `overall`, with its interval, and the scores of its six tasks."""
    interval = (("overall", overall, ".3f"), ("overall_low", "from", ".3f"), ("overall_high", "to", ".3f"))
    return *interval, *((f"task_{task}", label, ".2f") for task, label in GENEVAL_TASKS.items())


def gaussian_fields(name: str, fields: dict) -> dict:
    """Overrides of `sample.gaussian` for the row `name`, with a__b for field b of section a.

    Raises:
      ValueError: for a key that is not a field.
    """
    for key in fields:
        section, _, field = key.rpartition("__")
        if field not in (GAUSSIAN[section] if section else GAUSSIAN):
            raise ValueError(f"{name}: {key} is not a field of sample.gaussian")
    return {f"sample.gaussian.{key.replace('__', '.')}": value for key, value in fields.items()}


def plot(name: str, x: str, y: str, title: str, **fields) -> dict:
    """One metric against another; `fields` are further fields of the plot, such as its scales or another label."""
    labels = {f"{axis}label": METRICS[metric][2] for axis, metric in (("x", x), ("y", y)) if metric in METRICS}
    return dict(name=name, x=x, y=y, title=title) | labels | fields


def quality(title: str = "Sample quality against cost", x: str = "evaluations", **fields) -> dict:
    """Generative perplexity against a cost."""
    return plot("quality", x, "generative_perplexity", title, **fields, log_y=True)


def frontier(title: str) -> dict:
    """Generative perplexity against entropy, which separates better samples from less diverse ones."""
    return plot("frontier", "entropy", "generative_perplexity", title, log_x=False, log_y=True)


def image_quality() -> dict:
    """The distance from real images in the features of a classifier, against evaluations."""
    title = "Distance from real images against cost"
    return plot("quality", "evaluations", "classifier_frechet", title, log_y=True)


def evaluated(name: str, overrides: dict | None = None, **fields) -> dict:
    """A row whose model is evaluated; `fields` are further fields of the row, such as `seeds`."""
    return dict(name=name, overrides=overrides or {}, verbs=("evaluate",), **fields)


def sampled(name: str, overrides: dict, steps: int = 0, **fields) -> dict:
    """A row of samples, in `steps` steps unless 0."""
    settings = overrides | {"sample.steps": steps} if steps else overrides
    return dict(name=name, overrides=settings, verbs=("sample",), **fields)


def held_out(name: str = "Held-out text", **fields) -> dict:
    """The row of held-out data, measured like samples."""
    return sampled(name, {"sample.policy": "data"}, **fields)
