"""The Fréchet distance of known Gaussians, Inception Scores, and errors of missing Inception weights."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffusion.metrics.frechet import (
    check_inception,
    classifier_statistics,
    frechet_distance,
    inception_outputs,
    inception_score,
    moments,
)
from tests.checks import refused

RNG = np.random.default_rng(0)


def covariance(size, rank):
    factor = RNG.normal(size=(size, rank))
    return factor @ factor.T


def test_diagonal_gaussians_add_up_and_rotations_change_nothing():
    first, second = (np.array([1.0]), np.array([[4.0]])), (np.array([4.0]), np.array([[9.0]]))
    assert frechet_distance(first, second) == pytest.approx(3**2 + (2 - 3) ** 2)
    mean1, mean2, var1, var2 = np.abs(RNG.normal(size=(4, 5)))
    expected = np.sum((mean1 - mean2) ** 2) + np.sum((np.sqrt(var1) - np.sqrt(var2)) ** 2)
    turn, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
    first, second = (turn @ mean1, turn @ np.diag(var1) @ turn.T), (turn @ mean2, turn @ np.diag(var2) @ turn.T)
    assert frechet_distance(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("rank", [6, 3])
def test_covariances_that_do_not_commute_agree_with_the_textbook_formula(rank):
    one, two = covariance(6, rank), covariance(6, 6)
    mean = RNG.normal(size=6)
    expected = mean @ mean + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))
    assert frechet_distance((mean, one), (np.zeros(6), two)) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance((mean, one), (mean, one)) == pytest.approx(0, abs=1e-6)


def test_moments_of_a_sample():
    features = RNG.normal(size=(500, 3)).astype(np.float32) @ np.diag([1.0, 2.0, 3.0]) + 5
    mean, cov = moments(features)
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(cov, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-10)
    with refused(r"sample\.count: a covariance needs at least 2"):
        moments(features[:1])
    with refused("not finite"):
        moments(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with refused("3 and 2 numbers"):
        frechet_distance((mean, cov), (np.zeros(2), np.eye(2)))


def test_classifier_statistics_are_confidence_and_class_entropy():
    even = classifier_statistics(900 * np.eye(4))
    assert even == {"confidence": pytest.approx(1), "class_entropy": pytest.approx(1)}
    alone = classifier_statistics(np.tile([0.0, np.log(3)], (5, 1)))
    assert alone == {"confidence": pytest.approx(0.75), "class_entropy": 0}
    assert classifier_statistics(5 * np.eye(4)[:2])["class_entropy"] == pytest.approx(0.5)


def test_inception_score_is_1_for_equal_predictions_and_the_number_of_evenly_predicted_classes():
    """Predictions (3/4, 1/4) and (1/4, 3/4): exp(log 2 - entropy of 1/4) = 1.1397 if a part has as many of both."""
    equal = np.tile(RNG.normal(size=5), (40, 1))
    assert inception_score(equal) == {
        "inception_score": pytest.approx(1),
        "inception_score_deviation": pytest.approx(0),
    }
    sure = 900 * np.eye(5)[np.arange(40) % 5]
    assert inception_score(sure, parts=1)["inception_score"] == pytest.approx(5)
    unsure = np.log([[3.0, 1.0], [1.0, 3.0]] * 20)
    assert inception_score(unsure, parts=1)["inception_score"] == pytest.approx(np.exp(np.log(2) - 0.562335), rel=1e-5)
    # With one image a part every mean is the prediction itself; with two of different classes the score is 2.
    assert inception_score(sure, parts=40)["inception_score"] == pytest.approx(1)
    pairs = inception_score(900 * np.eye(40), parts=20)
    assert pairs == {"inception_score": pytest.approx(2), "inception_score_deviation": pytest.approx(0)}
    with refused(r"sample\.count: the Inception Score of 10 parts needs as many images, not 9"):
        inception_score(equal[:9])


def test_missing_weights_and_library_are_named(tmp_path, monkeypatch):
    with refused(r"judge\.checkpoint: '' is not a file; pass --config\.judge\.checkpoint=FILE"):
        check_inception("")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with refused(r"judge\.name: inception needs the package torch-fidelity"):
        check_inception(str(weights))


def test_inception_receives_bytes_of_three_colors_in_batches(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    weights, seen = tmp_path / "weights.pth", []
    weights.write_bytes(b"")

    class Extractor:
        def __init__(self, name, features_list, feature_extractor_weights_path):
            assert features_list == ["2048", "logits_unbiased"] and feature_extractor_weights_path == str(weights)

        def to(self, device):
            return self

        def __call__(self, images):
            assert images.dtype == torch.uint8 and images.shape[1:] == (3, 4, 4)
            seen.append(len(images))
            return images.float().mean((2, 3)), images.float().amax((2, 3))

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    images = RNG.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    features, logits = inception_outputs(str(weights), 2)(images)
    np.testing.assert_allclose(features, np.tile(images.mean((2, 3)), (1, 3)), rtol=1e-6)
    np.testing.assert_array_equal(logits, np.tile(images.max((2, 3)), (1, 3)))
    assert seen == [2, 2, 1]
