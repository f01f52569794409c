"""Images in the verb `sample`: metrics and their reference, grids, and errors for unsuitable judges."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from configs.base import defaults
from configs.recipes.small import tiny
from diffusion.data import load_dataset
from diffusion.metrics.frechet import frechet_distance, moments
from experiments.tasks import images
from experiments.tasks.token_sampling import SampleSet
from tests.checks import refused
from tests.experiments.conftest import run_of


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(SimpleNamespace(source="blobs", tokenizer="values", length=64, vocab_size=16))


@pytest.fixture
def job(dataset, tmp_path):
    def make(**options):
        config = tiny(defaults("images", "debug"))
        config.sample.count = 100
        config.data.source = "blobs"
        config.judge.update(dict(name="none", row="", reference="test", checkpoint="", batch=48) | options)
        return run_of(config, dataset, tmp_path, {"weights": "train-model", "scorer": "train-judge"})

    return make


def metrics_of(run, tokens):
    """Return the metrics of one set of images."""
    (metrics,) = images.measure(run, [SampleSet(tokens, None)], {})
    return metrics


def quarters(tokens):
    """Classify perfectly: return the brightness of the four quarters, as features and as logits."""
    bright = tokens.reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4).astype(float)
    return bright, bright


def test_distance_is_from_the_reference_split_in_features_of_the_judge(job, dataset, monkeypatch):
    judges = []
    monkeypatch.setattr(images, "trained_classifier", lambda run: judges.append(run.job.needs["scorer"]) or quarters)
    run = job(name="classifier", row="Classifier")
    images.check_judge(run)
    tokens, _ = images.held_out(run, 100)
    np.testing.assert_array_equal(tokens, dataset.split("validation").rows(range(100))["tokens"])
    test = dataset.split("test").rows(range(256))["tokens"]
    metrics = metrics_of(run, tokens)
    expected = frechet_distance(moments(quarters(tokens)[0]), moments(quarters(test)[0]))
    assert metrics["classifier_frechet"] == pytest.approx(expected) and judges == ["train-judge"]
    assert metrics["samples"] == 100 and metrics["classifier_accuracy"] == 1 and metrics["class_entropy"] > 0.9
    # Equal images have a large distance and one class.
    equal = metrics_of(run, np.repeat(tokens[:1], 100, axis=0))
    assert equal["classifier_frechet"] > 10 * metrics["classifier_frechet"] and equal["class_entropy"] == 0
    grid = matplotlib.image.imread(run.folder / "samples.png")
    assert grid.shape[:2] == (8 * 66 - 2, 8 * 66 - 2)
    other = job(name="classifier", row="Classifier", reference="validation")
    np.testing.assert_array_equal(images.held_out(other, 9)[0], dataset.split("test").rows(range(9))["tokens"])


def test_without_a_judge_there_is_a_grid_but_no_distance(job):
    run = job()
    images.check_judge(run)
    # 16 is the token of invalid codes.
    assert metrics_of(run, np.full((3, 64), 16)) == {"samples": 3}
    assert (run.folder / "samples.png").exists()


def test_inception_reads_bytes_of_samples_and_reference(job, dataset, monkeypatch):
    inputs = []

    def outputs(images):
        inputs.append(images)
        features = images.reshape(len(images), -1)[:, ::7].astype(float)
        return features, np.zeros((len(images), 5))

    monkeypatch.setattr(images, "inception_outputs", lambda checkpoint, batch: outputs)
    tokens = dataset.split("test").rows(range(256))["tokens"]
    metrics = metrics_of(job(name="inception", checkpoint="weights.pth"), tokens)
    assert metrics["fid"] == pytest.approx(0, abs=1e-6) and metrics["inception_score"] == pytest.approx(1)
    assert all(part.shape == (256, 1, 8, 8) and part.dtype == np.uint8 and part.max() == 255 for part in inputs)


def test_errors_for_unsuitable_judges_name_the_field(job):
    with refused(r"judge\.row: empty"):
        images.check_judge(job(name="classifier"))
    with refused("has no 'dev' examples"):
        images.check_judge(job(name="classifier", row="x", reference="dev"))
    run = job(name="inception")
    with refused(r"judge\.checkpoint: '' is not a file"):
        images.check_judge(run)
    run.config.sample.count = 9
    with refused(r"sample\.count: the Inception Score of 10 parts needs as many images, not 9"):
        images.check_judge(run)


def test_tables_copy_the_grids_of_their_rows(job, tmp_path):
    run = job()
    metrics_of(run, np.zeros((3, 64), int))
    row = {"job": "sample-a", "verb": "sample", "row": "MNIST, 2 digits", "seed": 1}
    (tmp_path / "jobs" / "sample-a").mkdir(parents=True)
    (run.folder / "samples.png").rename(tmp_path / "jobs" / "sample-a" / "samples.png")
    rows = [row, row | {"verb": "train"}, row | {"job": "not-there"}]
    (copy,) = images.collect(rows, tmp_path, tmp_path / "tables")
    assert copy.name == "samples-mnist-2-digits-seed-1.png" and copy.stat().st_size > 100
