"""Distances and scores of images by a network: Fréchet distance, Inception Score, and statistics of a classifier."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from etils import epy
from jaxtyping import Float, UInt8

with epy.lazy_imports():
    from scipy import special

# torch-fidelity and the original weights are optional downloads.
WEIGHTS = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
PARTS = 10  # of the Inception Score
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
    probs = special.softmax(np.asarray(logits, np.float64), axis=1)
    frequencies = np.bincount(probs.argmax(axis=1), minlength=probs.shape[1]) / len(probs)
    return {
        "confidence": float(probs.max(axis=1).mean()),
        "class_entropy": float(special.entr(frequencies).sum() / np.log(probs.shape[1])),
    }


def inception_score(logits: Float[np.ndarray, "N K"], parts: int = PARTS) -> dict[str, float]:
    """Inception Score exp(mean_x KL(p(y | x) || p(y))) in each part of the images: its mean, and standard deviation.

    p(y) is the mean of p(y | x) over a part (Salimans et al., arXiv 1606.03498, section 4). The score is 1 if all
    images have the same prediction, and K at most. Ten parts of the images in random order, and the 1,008 logits of
    `inception_outputs`, are the definition of torch-fidelity, whose order is another one. The score depends on the
    number of images: compare equal counts alone.

    Raises:
      ValueError: for fewer images than parts.
    """
    check_parts(len(logits), parts)
    order = np.random.default_rng(0).permutation(len(logits))
    scores = []
    for part in np.array_split(np.asarray(logits, np.float64)[order], parts):
        probs, mean = special.softmax(part, axis=1), special.softmax(part, axis=1).mean(axis=0)
        # KL(p || q) averaged over x is the entropy of the mean less the mean entropy.
        scores.append(np.exp(special.entr(mean).sum() - special.entr(probs).sum(axis=1).mean()))
    return {"inception_score": float(np.mean(scores)), "inception_score_deviation": float(np.std(scores))}


def check_parts(count: int, parts: int = PARTS) -> None:
    """Raise ValueError for fewer images than the Inception Score has parts."""
    if count < parts:
        raise ValueError(f"sample.count: the Inception Score of {parts} parts needs as many images, not {count}")


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


def inception_outputs(
    weights: str, batch_size: int
) -> Callable[[UInt8[np.ndarray, "N C H W"]], tuple[Float[np.ndarray, "N 2048"], Float[np.ndarray, "N 1008"]]]:
    """Function from images of one or three colors, values 0 .. 255, to 2,048 pooled features and 1,008 logits.

    The logits are `logits_unbiased` of torch-fidelity, the features times the weights of the last layer without its
    bias, which its Inception Score reads.

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
    network = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
    )
    network = network.to(device)

    def outputs(images):
        parts = []
        for start in range(0, len(images), batch_size):
            part = np.ascontiguousarray(images[start : start + batch_size], np.uint8)
            part = np.repeat(part, 3, axis=1) if part.shape[1] == 1 else part
            with torch.no_grad():
                parts.append([each.cpu().numpy() for each in network(torch.from_numpy(part).to(device))])
        features, logits = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return features, logits

    return outputs
