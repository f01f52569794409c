"""The Fréchet distance of known Gaussians, statistics of a classifier, and errors of missing Inception weights."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffusion.metrics.frechet import (
    check_inception,
    classifier_statistics,
    frechet_distance,
    inception_features,
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
            assert features_list == ["2048"] and feature_extractor_weights_path == str(weights)

        def to(self, device):
            return self

        def __call__(self, images):
            assert images.dtype == torch.uint8 and images.shape[1:] == (3, 4, 4)
            seen.append(len(images))
            return (images.float().mean((2, 3)),)

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    images = RNG.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)
    features = inception_features(str(weights), 2)(images)
    np.testing.assert_allclose(features, np.tile(images.mean((2, 3)), (1, 3)), rtol=1e-6)
    assert seen == [2, 2, 1]
