"""MAUVE, the area under the divergence curve between two sets of texts, from their features (arXiv 2102.01454).

NumPy alone, with the published defaults: rows scaled to unit length, principal components up to 90 % of the variance,
k-means with n / 10 clusters (5 restarts, at most 500 rounds), scale 5, 25 points of the curve. Given the clusters the
score is the public package's; k-means starts from other random centers, which moves the score as another seed does.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Mauve(NamedTuple):
    """The score in [0, 1] (1: same clusters), with the counts without which it cannot be compared."""

    score: float
    references: int
    samples: int
    clusters: int


def mauve(
    references: Float[np.ndarray, "N D"],
    samples: Float[np.ndarray, "M E"],
    *,
    clusters: int | None = None,
    seed: int = 25,
    restarts: int = 5,
    rounds: int = 500,
) -> Mauve:
    """Score samples against references. It depends on both counts: use equal ones, and report them.

    Raises:
      ValueError: for fewer than 2 rows a side, different widths, features that are not finite, or too many clusters.
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
    labels = kmeans(principal(unit(points), 0.9), clusters, np.random.default_rng(seed), restarts, rounds)
    histogram_p, histogram_q = (
        np.bincount(part, minlength=clusters) / len(part)
        for part in (labels[: len(references)], labels[len(references) :])
    )
    return Mauve(curve_area(histogram_p, histogram_q), len(references), len(samples), clusters)


def curve_area(p: Float[np.ndarray, " C"], q: Float[np.ndarray, " C"], scale: float = 5.0, points: int = 25) -> float:
    """Area under {(exp(-scale KL(q | r)), exp(-scale KL(p | r))) : r = w p + (1 - w) q}, from (1, 0) to (0, 1)."""
    mixtures = [weight * p + (1 - weight) * q for weight in np.linspace(1e-6, 1 - 1e-6, points)]
    x = np.exp([0.0, *(-scale * divergence(q, mixture) for mixture in mixtures), -np.inf])
    y = np.exp([-np.inf, *(-scale * divergence(p, mixture) for mixture in mixtures), 0.0])
    return float(np.trapezoid(x, y))


def divergence(p: Float[np.ndarray, " C"], q: Float[np.ndarray, " C"]) -> float:
    """KL(p | q) in nats, where q covers p."""
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / q[positive])))


def unit(points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows of length 1; a zero row stays."""
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(norms > 0, norms, 1)


def principal(points: Float[np.ndarray, "N D"], explained: float) -> Float[np.ndarray, "N E"]:
    """Projection on the fewest principal components that hold the share `explained` of the variance."""
    centered = points - points.mean(axis=0)
    left, scale, _ = np.linalg.svd(centered, full_matrices=False)
    total = np.sum(scale**2)
    if total == 0:
        return centered[:, :1]
    count = int(np.searchsorted(np.cumsum(scale**2) / total, explained)) + 1
    return left[:, :count] * scale[:count]


def kmeans(
    points: Float[np.ndarray, "N E"], clusters: int, random: np.random.Generator, restarts: int, rounds: int
) -> Int[np.ndarray, " N"]:
    """Lloyd's algorithm from random points; the labels of the restart with the least squared distance."""
    best, best_cost = np.zeros(len(points), int), np.inf
    for _ in range(restarts):
        centers = points[random.choice(len(points), clusters, replace=False)]
        labels = np.full(len(points), -1)
        for _ in range(rounds):
            distances = (centers**2).sum(axis=1) - 2 * points @ centers.T
            previous, labels = labels, distances.argmin(axis=1)
            if np.array_equal(previous, labels):
                break
            counts = np.bincount(labels, minlength=clusters)
            order = np.argsort(labels, kind="stable")
            filled = counts > 0
            starts = (np.cumsum(counts) - counts)[filled]
            centers = centers.copy()
            centers[filled] = np.add.reduceat(points[order], starts) / counts[filled, None]
            # An empty cluster moves to the point that is served worst.
            worst = np.argsort(-(distances.min(axis=1) + (points**2).sum(axis=1)))
            centers[~filled] = points[worst[: np.sum(~filled)]]
        cost = distances.min(axis=1).sum()
        if cost < best_cost:
            best, best_cost = labels, cost
    return best
