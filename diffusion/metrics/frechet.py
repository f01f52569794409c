"""Fréchet distance between two sets of features, Inception's features for FID, and statistics of a classifier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from scipy.special import entr, softmax

# torch-fidelity and the original weights are optional downloads.
WEIGHTS = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
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
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # negative eigenvalues are rounding errors
    cross = np.linalg.eigvalsh(root @ cov2 @ root)
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(np.maximum(cross, 0)).sum()
    return float(np.sum((mean1 - mean2) ** 2) + trace)


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


def check_inception(weights: str) -> None:
    """Checks that the weights and torch-fidelity are available.

    Raises:
      ValueError: when the weights or the library are missing.
    """
    if not weights or not Path(weights).expanduser().is_file():
        raise ValueError(
            f"judge.checkpoint: {weights!r} is not a file; pass --config.judge.checkpoint=FILE, "
            f"weights-inception-2015-12-05-6726825d.pth from {WEIGHTS}"
        )
    try:
        import torch_fidelity  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("judge.name: inception needs the package torch-fidelity; pip install torch-fidelity") from None


def inception_features(
    weights: str, batch_size: int
) -> Callable[[UInt8[np.ndarray, "N C H W"]], Float[np.ndarray, "N 2048"]]:
    """Function from images of one or three colors, values 0 .. 255, to their 2,048 pooled features.

    Raises:
      ValueError: when the weights or the library are missing.
    """
    check_inception(weights)
    import torch  # pyright: ignore[reportMissingImports]
    from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
        FeatureExtractorInceptionV3,
    )

    device = "cuda" if torch.cuda.is_available() else "cpu"
    path = str(Path(weights).expanduser())
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)
    network = network.to(device)

    def features(images):
        parts = []
        for start in range(0, len(images), batch_size):
            part = np.ascontiguousarray(images[start : start + batch_size], np.uint8)
            part = np.repeat(part, 3, axis=1) if part.shape[1] == 1 else part
            with torch.no_grad():
                parts.append(network(torch.from_numpy(part).to(device))[0].cpu().numpy())
        return np.concatenate(parts)

    return features
