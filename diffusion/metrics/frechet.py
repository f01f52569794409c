"""Fréchet distance between two sets of features, and what a classifier's opinions say about generated pictures."""

import numpy as np
from jaxtyping import Float

Moments = tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]


def moments(features: Float[np.ndarray, "N D"]) -> Moments:
    """Mean and covariance (over N - 1) in float64.

    Raises:
      ValueError: for fewer than two rows, or numbers that are not finite.
    """
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"sample.count: a covariance needs at least 2 samples, not features {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features of the samples are not finite")
    mean = features.mean(axis=0)
    centered = features - mean
    return mean, centered.T @ centered / (len(features) - 1)


def frechet_distance(first: Moments, second: tuple[Float[np.ndarray, " E"], Float[np.ndarray, "E E"]]) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2)), squared 2-Wasserstein distance of two Gaussians.

    With Inception's features this is FID (Heusel et al., arXiv 1706.08500, equation 6), where C1 C2 stands for the
    similar, but symmetric, product here: its root comes from eigenvalues and is real for any rank. The estimate from N
    samples is too large by a term that falls as 1/N: compare equal counts alone.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    if mean1.shape != mean2.shape:
        raise ValueError(f"features of {len(mean1)} and {len(mean2)} numbers cannot be compared")
    root = positive_root(cov1)
    cross = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + trace)


def positive_root(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """The symmetric root of a positive semidefinite matrix; eigenvalues below 0 are rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def classifier_statistics(logits: Float[np.ndarray, "N K"]) -> dict[str, float]:
    """What a classifier says of samples: how sure it is, and how evenly its choices use the classes.

    `confidence` is the mean probability of the chosen class; `class_entropy` that of the choices' shares over log K: 1
    is even, 0 a single class.
    """
    logits = np.asarray(logits, np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = shifted / shifted.sum(axis=1, keepdims=True)
    shares = np.bincount(probs.argmax(axis=1), minlength=probs.shape[1]) / len(probs)
    used = shares[shares > 0]
    return {
        "confidence": float(probs.max(axis=1).mean()),
        "class_entropy": float(-(used * np.log(used)).sum() / np.log(probs.shape[1])),
    }
