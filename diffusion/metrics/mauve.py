"""MAUVE, the area under the divergence curve between two sets of texts, from their features (arXiv 2102.01454).

With the published defaults: rows of unit length, principal components up to 90 % of the variance, k-means with n / 10
clusters and 5 restarts, scale 5, and 25 points of the curve. Given the clusters the score equals that of the public
package; k-means is SciPy's and starts from different random centers, which has the effect of a different seed.
"""

import numpy as np
from etils import epy
from jaxtyping import Float

with epy.lazy_imports():
    from scipy import special
    from scipy.cluster import vq

RESTARTS = 5


def mauve(
    references: Float[np.ndarray, "N D"],
    samples: Float[np.ndarray, "M E"],
    *,
    clusters: int | None = None,
    seed: int = 25,
) -> float:
    """Score in [0, 1] of samples against references, 1 for equal histograms; use equal counts, on which it depends.

    Raises:
      ValueError: for fewer than 2 rows per set, different widths, features that are not finite, or too many clusters.
    """
    references, samples = np.asarray(references, np.float64), np.asarray(samples, np.float64)
    if min(len(references), len(samples)) < 2 or references.shape[1:] != samples.shape[1:]:
        raise ValueError(f"mauve: needs two sets of at least 2 rows, not {references.shape} and {samples.shape}")
    points = np.concatenate([references, samples])
    if not np.isfinite(points).all():
        raise ValueError("mauve: features must be finite; check the judge's precision")
    clusters = clusters or max(2, round(min(len(references), len(samples)) / 10))
    if clusters > len(points):
        raise ValueError(f"mauve: {clusters} clusters need at least as many rows, not {len(points)}")
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    components = principal_components(points / np.where(norms > 0, norms, 1), 0.9)
    centers, _ = vq.kmeans(components, clusters, iter=RESTARTS, rng=np.random.default_rng(seed))
    labels, _ = vq.vq(components, centers)
    parts = np.split(labels, [len(references)])
    histogram_p, histogram_q = (np.bincount(part, minlength=clusters) / len(part) for part in parts)
    return curve_area(histogram_p, histogram_q)


def curve_area(p: Float[np.ndarray, " C"], q: Float[np.ndarray, " C"], scale: float = 5.0, points: int = 25) -> float:
    """Area under {(exp(-scale KL(q | r)), exp(-scale KL(p | r))) : r = w p + (1 - w) q}, from (1, 0) to (0, 1)."""
    mixtures = [weight * p + (1 - weight) * q for weight in np.linspace(1e-6, 1 - 1e-6, points)]
    x = np.exp([0.0, *(-scale * special.rel_entr(q, mixture).sum() for mixture in mixtures), -np.inf])
    y = np.exp([-np.inf, *(-scale * special.rel_entr(p, mixture).sum() for mixture in mixtures), 0.0])
    return float(np.trapezoid(x, y))


def principal_components(points: Float[np.ndarray, "N D"], explained: float) -> Float[np.ndarray, "N E"]:
    """Projection onto the fewest principal components that explain the share `explained` of the variance."""
    centered = points - points.mean(axis=0)
    left, scale, _ = np.linalg.svd(centered, full_matrices=False)
    total = np.sum(scale**2)
    if total == 0:
        return centered[:, :1]
    count = int(np.searchsorted(np.cumsum(scale**2) / total, explained)) + 1
    return left[:, :count] * scale[:count]
