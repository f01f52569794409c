"""MAUVE: disjoint and equal sets, the order of distances, and the public package."""

import numpy as np
import pytest

from diffusion.metrics.mauve import curve_area, mauve, principal_components
from tests.checks import refused


def features(count: int, shift: float, seed: int) -> np.ndarray:
    centers = np.random.default_rng(0).normal(size=(4, 8))
    random = np.random.default_rng(seed)
    return centers[random.integers(4, size=count)] + 0.3 * random.normal(size=(count, 8)) + shift


def test_mauve_orders_sets_by_distance():
    reference = features(200, 0.0, 1)
    scores = [mauve(reference, reference)] + [mauve(reference, features(200, s, 2)) for s in (0, 0.5, 3)]
    assert 1 == pytest.approx(scores[0], abs=1e-6) and scores[0] > scores[1] > scores[2] > scores[3]
    assert scores[1] > 0.8 and scores[3] < 0.1
    with refused("two sets"):
        mauve(reference, reference[:, :2])
    with refused("finite"):
        mauve(reference, reference * np.nan)
    assert mauve(np.ones((4, 2)), np.ones((4, 2))) == pytest.approx(1), "without a principal component"


def test_mauve_of_disjoint_histograms_is_known():
    """KL(q | r) = -log(1 - w), so the curve is x = (1 - w)^5, y = w^5, whose area is 5 B(6, 5)."""
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert curve_area(p, q, points=2000) == pytest.approx(5 / 1260, rel=1e-3)
    assert curve_area(p, p) == pytest.approx(1)


def test_principal_components_explain_nine_tenths():
    """The variances are as 9 : 1 : 1 / 4, of which the first has 88 % and the first two 98 %."""
    points = np.diag([3.0, 1.0, 0.5])
    kept = principal_components(np.concatenate([points, -points]), 0.9)
    np.testing.assert_allclose(np.abs(kept[:3]), [[3, 0], [0, 1], [0, 0]], atol=1e-12)


def test_mauve_agrees_with_the_public_package():
    pytest.importorskip("faiss")
    public = pytest.importorskip("mauve")
    reference, samples = features(400, 0.0, 1), features(400, 0.25, 2)
    theirs = public.compute_mauve(p_features=reference, q_features=samples, num_buckets=8, verbose=False)
    assert curve_area(theirs.p_hist, theirs.q_hist) == pytest.approx(theirs.mauve, abs=1e-9)
    assert mauve(reference, samples, clusters=8) == pytest.approx(theirs.mauve, abs=0.05)
