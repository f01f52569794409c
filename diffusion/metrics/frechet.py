"""Fréchet distance between two sets of features, and statistics of a classifier's predictions on images."""

import numpy as np
from jaxtyping import Float
from scipy.special import entr, softmax

Moments = tuple[Float[np.ndarray, " D"], Float[np.ndarray, "D D"]]


def moments(features: Float[np.ndarray, "N D"]) -> Moments:
    """Mean and unbiased covariance (over N - 1) in float64.

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
    """Squared 2-Wasserstein distance of two Gaussians, |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2)).

    With Inception's features this is FID (Heusel et al., arXiv 1706.08500, equation 6, which has the similar product
    C1 C2); the trace of the root of the symmetric product is the sum of the roots of its eigenvalues, and is real for
    any rank. The estimate from N samples has a positive bias of order 1/N: compare equal counts alone.

    Raises:
      ValueError: when the features differ in number.
    """
    (mean1, cov1), (mean2, cov2) = first, second
    if mean1.shape != mean2.shape:
        raise ValueError(f"features of {len(mean1)} and {len(mean2)} numbers cannot be compared")
    root = positive_root(cov1)
    cross = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + trace)


def positive_root(matrix: Float[np.ndarray, "D D"]) -> Float[np.ndarray, "D D"]:
    """Symmetric square root of a positive semidefinite matrix; negative eigenvalues are rounding errors."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def classifier_statistics(logits: Float[np.ndarray, "N K"]) -> dict[str, float]:
    """Confidence of a classifier on samples, and the diversity of its predictions.

    `confidence` is the mean probability of the predicted class; `class_entropy` is the entropy of the frequencies of
    the K predicted classes over log K: 1 for equal frequencies, 0 for a single class.
    """
    probs = softmax(np.asarray(logits, np.float64), axis=1)
    frequencies = np.bincount(probs.argmax(axis=1), minlength=probs.shape[1]) / len(probs)
    return {
        "confidence": float(probs.max(axis=1).mean()),
        "class_entropy": float(entr(frequencies).sum() / np.log(probs.shape[1])),
    }
