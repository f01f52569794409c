"""What the verb `sample` makes of pictures: a grid to look at, and distances from real ones in a judge's features."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float, Int

from diffusion.data.arrays import as_pixels, label_count
from diffusion.metrics.frechet import classifier_statistics, frechet_distance, moments
from diffusion.metrics.inception import check_inception, inception_features
from diffusion.report.images import image_grid, pictures
from diffusion.train.weights import load_weights
from experiments import families
from experiments.plan import Job, read_config
from experiments.run_context import Context

COLUMNS, SHOWN = 8, 64
Classify = Callable[[Int[np.ndarray, "N L"]], tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N K"]]]


def check(job: Context) -> None:
    """Raise ValueError for a judge that cannot judge pictures, before anything is trained."""
    options = job.config.judge
    if options.name not in ("none", "classifier", "inception"):
        raise ValueError(f"judge.name: {options.name!r} cannot judge images; known: none, classifier, inception")
    if options.name == "none":
        return
    job.dataset.split(options.reference)
    if options.name == "classifier":
        label_count(job.dataset.source)
        if not options.row:
            raise ValueError("judge.row: empty; name the row of the table whose model is the classifier")
    else:
        check_inception(options.checkpoint)


def held_out(job: Context, count: int) -> Int[np.ndarray, "N L"]:
    """Real images that are not among the reference's: what perfect samples would score."""
    split = job.dataset.split("validation" if job.config.judge.reference == "test" else "test")
    return split.rows(range(min(count, len(split))))["tokens"]


def measure(job: Context, spec: Job, sets: list[Int[np.ndarray, "_ L"]]) -> list[dict[str, float]]:
    """Write samples.png of the first set and compare each with all images of `judge.reference`.

    The judge is a classifier trained here (its Fréchet distance is no FID), or Inception (FID).
    """
    options, source = job.config.judge, job.dataset.source
    values = job.dataset.tokenizer.vocab_size
    # Digits that are no value read as `values`; the sampler has counted them, here they show as the brightest.
    pairs = [as_pixels(source, np.minimum(tokens, values - 1)) for tokens in sets]
    pixels, shape = pairs[0]
    values = 256 if source.endswith("_pairs") else values
    if jax.process_index() == 0:
        image_grid(job.folder / "samples.png", pixels[:SHOWN], shape, COLUMNS, values)
    counts: list[dict[str, float]] = [{"samples": len(tokens)} for tokens in sets]
    if options.name == "none":
        return counts
    split = job.dataset.split(options.reference)
    if options.name == "classifier":
        classify = trained_classifier(job, spec.needs[-1])
        reference = split.rows(range(len(split)))
        real, known = classify(reference["tokens"])
        accuracy = {"classifier_accuracy": float((known.argmax(axis=1) == reference["label"]).mean())}
        return [
            count | classifier_scores(*classify(tokens), real) | accuracy
            for count, tokens in zip(counts, sets, strict=True)
        ]
    features = inception_features(options.checkpoint, options.batch)

    def shown(rows):
        return pictures(*as_pixels(source, rows), values).transpose(0, 3, 1, 2)

    starts = range(0, len(split), 4096)
    parts = (split.rows(range(start, min(start + 4096, len(split))))["tokens"] for start in starts)
    real = moments(np.concatenate([features(shown(part)) for part in parts]))
    generated = [features(pictures(*pair, values).transpose(0, 3, 1, 2)) for pair in pairs]
    return [
        count | {"fid": frechet_distance(moments(part), real)} for count, part in zip(counts, generated, strict=True)
    ]


def classifier_scores(
    features: Float[np.ndarray, "N D"], logits: Float[np.ndarray, "N K"], real: Float[np.ndarray, "M D"]
) -> dict[str, float]:
    """Distance of features from real ones, and what the classifier takes the pictures for."""
    return {"classifier_frechet": frechet_distance(moments(features), moments(real)), **classifier_statistics(logits)}


def trained_classifier(job: Context, needed: str) -> Classify:
    """Features and logits of a classifier row of the same table, `judge.batch` pictures at a time."""
    folder = job.workdir / "jobs" / needed
    config = read_config(folder)
    system = families.system(config, job.dataset.tokenizer.vocab_size)
    params = load_weights(folder / "weights", system.init, job.mesh)
    size = job.config.judge.batch

    @jax.jit
    def judge(params, tokens):
        features = system.net.apply({"params": params}, tokens, method="features")
        return features, system.net.apply({"params": params}, features, method="classify")

    def classify(tokens):
        # The last batch is filled up, so that one program serves all.
        filled = np.concatenate([tokens, np.repeat(tokens[-1:], -len(tokens) % size, axis=0)])
        parts = [jax.device_get(judge(params, filled[start : start + size])) for start in range(0, len(filled), size)]
        features, logits = (np.concatenate(columns)[: len(tokens)] for columns in zip(*parts, strict=True))
        return features, logits

    return classify


def collect(rows: list[dict], workdir: Path, folder: Path) -> list[Path]:
    """Copies of all rows' sample grids, named by row and seed, for a table's folder."""
    copies = []
    for row in rows:
        grid = workdir / "jobs" / row["job"] / "samples.png"
        if row["verb"] == "sample" and grid.exists():
            copies.append(folder / grid_name(row))
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(grid, copies[-1])
    return copies


def grid_name(row: dict) -> str:
    """The file of a row's sample grid in a table's folder."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{row['row']} seed {row['seed']}".lower()).strip("-")
    return f"samples-{slug}.png"
