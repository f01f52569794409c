"""Samples of images: a grid, and distances from real images in the feature space of a judge."""

import re
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from diffusion.data.arrays import as_pixels, label_count
from diffusion.metrics.frechet import (
    check_inception,
    check_parts,
    classifier_statistics,
    frechet_distance,
    inception_outputs,
    inception_score,
    moments,
)
from diffusion.report.images import as_bytes, image_grid
from diffusion.storage import atomic_write
from experiments.families.base import System
from experiments.layout import job_folder
from experiments.run_context import Run, in_batches
from experiments.tasks import token_sampling
from experiments.tasks.token_sampling import SampleSet, TokenTask

LINES, COLUMNS, SHOWN = False, 8, 64
Classify = Callable[[Int[np.ndarray, "N L"]], tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]]


def check_config(config: ConfigDict, system: System, domain: str) -> None:
    """Raise ValueError for an unsuitable sampler, prompt, count or judge."""
    token_sampling.check_config(config, system, domain, TASK)
    check_judge_name(config)


def check_judge_name(config: ConfigDict) -> None:
    """Raise ValueError for a judge that cannot judge images, or too few samples for it."""
    options = config.judge
    if options.name not in ("none", "classifier", "inception"):
        raise ValueError(f"judge.name: {options.name!r} cannot judge images; known: none, classifier, inception")
    if options.name == "classifier" and not options.row:
        raise ValueError("judge.row: empty; name the row of the table whose model is the classifier")
    if options.name == "inception":
        check_parts(config.sample.count)


def check_judge(run: Run) -> None:
    """Raise ValueError as `check_judge_name`, and for a missing split, or missing weights of Inception."""
    options = run.config.judge
    check_judge_name(run.config)
    if options.name != "none":
        run.dataset.split(options.reference)
    if options.name == "classifier":
        label_count(run.config.data)
    if options.name == "inception":
        check_inception(options.checkpoint)


def held_out(run: Run, count: int) -> tuple[Int[np.ndarray, "N L"], None]:
    """Real images outside the reference, whose metrics are those of perfect samples."""
    split = run.dataset.split("validation" if run.config.judge.reference == "test" else "test")
    return split.rows(range(min(count, len(split))))["tokens"], None


def measure(run: Run, sets: list[SampleSet], cost: dict[str, float]) -> list[dict[str, float]]:
    """Write samples.png of the first set and compare each set with all images of `judge.reference`.

    The judge is a classifier of the same table, whose Fréchet distance is not FID, or Inception (FID and IS).
    """
    options, image = run.config.judge, run.dataset.image
    assert image is not None
    values = run.dataset.tokenizer.vocab_size
    # Invalid codes are decoded to `values`; the sampler counts them, and the grid shows the brightest value.
    pairs = [as_pixels(image, np.minimum(each.tokens, values - 1)) for each in sets]
    pixels, shape = pairs[0]
    values = 256 if image[2] == 2 else values
    if jax.process_index() == 0:
        image_grid(run.folder / "samples.png", pixels[:SHOWN], shape, COLUMNS, values)
    counts: list[dict[str, float]] = [{"samples": len(each.tokens)} for each in sets]
    if options.name == "none":
        return counts
    split = run.dataset.split(options.reference)
    if options.name == "classifier":
        classify = trained_classifier(run)
        reference = split.rows(range(len(split)))
        reference_features, logits = classify(reference["tokens"])
        accuracy = {"classifier_accuracy": float((logits.argmax(axis=1) == reference["label"]).mean())}
        return [
            count | classifier_scores(*classify(each.tokens), reference_features) | accuracy
            for count, each in zip(counts, sets, strict=True)
        ]
    outputs = inception_outputs(options.checkpoint, options.batch)

    def to_images(rows):
        return as_bytes(*as_pixels(image, rows), values).transpose(0, 3, 1, 2)

    starts = range(0, len(split), 4096)
    parts = (split.rows(range(start, min(start + 4096, len(split))))["tokens"] for start in starts)
    reference = moments(np.concatenate([outputs(to_images(part))[0] for part in parts]))
    generated = [outputs(as_bytes(*pair, values).transpose(0, 3, 1, 2)) for pair in pairs]
    return [
        count | {"fid": frechet_distance(moments(features), reference)} | inception_score(logits)
        for count, (features, logits) in zip(counts, generated, strict=True)
    ]


def classifier_scores(
    features: Float[np.ndarray, "N D"], logits: Float[np.ndarray, "N K"], reference: Float[np.ndarray, "M D"]
) -> dict[str, float]:
    """Fréchet distance of features from those of the reference, and statistics of the predicted classes."""
    return {
        "classifier_frechet": frechet_distance(moments(features), moments(reference)),
        **classifier_statistics(logits),
    }


def trained_classifier(run: Run) -> Classify:
    """Features and logits of a classifier row of the same table, in batches of `judge.batch` images."""
    _, system, params = run.load("scorer")

    @jax.jit
    def judge(params, tokens):
        features = system.net.apply({"params": params}, tokens, method="features")
        return features, system.net.apply({"params": params}, features, method="classify")

    def classify(tokens):
        parts = [jax.device_get(judge(params, tokens[at])) for at in in_batches(len(tokens), run.config.judge.batch)]
        features, logits = (np.concatenate(columns)[: len(tokens)] for columns in zip(*parts, strict=True))
        return features, logits

    return classify


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Copies of the sample grids of all rows in the folder of a table, named by row and seed."""
    copies = []
    for row in rows:
        grid = job_folder(row, workdir) / "samples.png"
        if row["verb"] == "sample" and grid.exists():
            copies.append(folder / grid_name(row))
            atomic_write(copies[-1], grid.read_bytes())
    return copies


def grid_name(row: dict) -> str:
    """File name of the sample grid of a row in the folder of a table."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{row['row']} seed {row['seed']}".lower()).strip("-")
    return f"samples-{slug}.png"


TASK = TokenTask(many_sets=True, held_out=held_out, measure=measure)


def check(run: Run) -> None:
    """Raise ValueError as `check_config`, and for a missing split or missing weights of the judge."""
    token_sampling.check(run, TASK)
    check_judge(run)


def sample(run: Run) -> dict:
    """Draw and measure images."""
    return token_sampling.draw_and_measure(run, TASK)
