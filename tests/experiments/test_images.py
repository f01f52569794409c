"""Pictures in the verb `sample`: what is measured against which images, and judges that cannot judge."""

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
from tests.experiments.conftest import run_of


@pytest.fixture(scope="module")
def dataset():
    return load_dataset(SimpleNamespace(source="blobs", tokenizer="values", length=64, vocab_size=16))


@pytest.fixture
def job(dataset, tmp_path):
    def make(**options):
        config = tiny(defaults("images", "debug"))
        config.judge.update(dict(name="none", row="", reference="test", checkpoint="", batch=48) | options)
        return run_of(config, dataset, tmp_path, {"weights": "train-model", "scorer": "train-judge"})

    return make


def measured(run, tokens):
    """The metrics of one set of images."""
    (metrics,) = images.measure(run, [SampleSet(tokens, None)], {})
    return metrics


def quarters(tokens):
    """A perfect classifier: the brightness of the four quarters, twice."""
    bright = tokens.reshape(-1, 2, 4, 2, 4).sum((2, 4)).reshape(-1, 4).astype(float)
    return bright, bright


def test_distance_is_that_from_the_reference_split_in_the_judges_features(job, dataset, monkeypatch):
    asked = []
    monkeypatch.setattr(images, "trained_classifier", lambda run: asked.append(run.job.needs["scorer"]) or quarters)
    made = job(name="classifier", row="Classifier")
    images.check_judge(made)
    real, _ = images.held_out(made, 100)
    np.testing.assert_array_equal(real, dataset.split("validation").rows(range(100))["tokens"])
    test = dataset.split("test").rows(range(256))["tokens"]
    metrics = measured(made, real)
    expected = frechet_distance(moments(quarters(real)[0]), moments(quarters(test)[0]))
    assert metrics["classifier_frechet"] == pytest.approx(expected) and asked == ["train-judge"]
    assert metrics["samples"] == 100 and metrics["classifier_accuracy"] == 1 and metrics["class_entropy"] > 0.9
    # Pictures that are all alike are far away, and of one class.
    alike = measured(made, np.repeat(real[:1], 100, axis=0))
    assert alike["classifier_frechet"] > 10 * metrics["classifier_frechet"] and alike["class_entropy"] == 0
    grid = matplotlib.image.imread(made.folder / "samples.png")
    assert grid.shape[:2] == (8 * 66 - 2, 8 * 66 - 2)
    other = job(name="classifier", row="Classifier", reference="validation")
    np.testing.assert_array_equal(images.held_out(other, 9)[0], dataset.split("test").rows(range(9))["tokens"])


def test_without_a_judge_there_are_pictures_and_no_distance(job):
    made = job()
    images.check_judge(made)
    # 16 stands for digits that are no value.
    assert measured(made, np.full((3, 64), 16)) == {"samples": 3}
    assert (made.folder / "samples.png").exists()


def test_inception_sees_bytes_of_both_sides(job, dataset, monkeypatch):
    seen = []

    def features(pictures):
        seen.append(pictures)
        return pictures.reshape(len(pictures), -1)[:, ::7].astype(float)

    monkeypatch.setattr(images, "inception_features", lambda checkpoint, batch: features)
    tokens = dataset.split("test").rows(range(256))["tokens"]
    metrics = measured(job(name="inception", checkpoint="weights.pth"), tokens)
    assert metrics["fid"] == pytest.approx(0, abs=1e-6)
    assert all(part.shape == (256, 1, 8, 8) and part.dtype == np.uint8 and part.max() == 255 for part in seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "gpt2"}, r"judge\.name: 'gpt2' cannot judge images; known: none, classifier, inception"),
        ({"name": "classifier"}, r"judge\.row: empty"),
        ({"name": "classifier", "row": "x", "reference": "dev"}, "has no 'dev' examples"),
        ({"name": "inception"}, r"judge\.checkpoint: '' is no file"),
    ],
)
def test_judges_that_cannot_judge_are_named(options, message, job):
    with pytest.raises(ValueError, match=message):
        images.check_judge(job(**options))


def test_tables_collect_the_grids_of_their_rows(job, tmp_path):
    made = job()
    measured(made, np.zeros((3, 64), int))
    row = {"job": "sample-a", "verb": "sample", "row": "MNIST, 2 digits", "seed": 1}
    (tmp_path / "jobs" / "sample-a").mkdir(parents=True)
    (made.folder / "samples.png").rename(tmp_path / "jobs" / "sample-a" / "samples.png")
    rows = [row, row | {"verb": "train"}, row | {"job": "not-there"}]
    (copy,) = images.collect(rows, tmp_path, tmp_path / "tables")
    assert copy.name == "samples-mnist-2-digits-seed-1.png" and copy.stat().st_size > 100
