"""Inception features for FID, from torch-fidelity with the original weights; both are optional downloads."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

WEIGHTS = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"


def check_inception(weights: str) -> None:
    """Checks that the weights and torch-fidelity are available.

    Raises:
      ValueError: when the weights or the library are missing.
    """
    if not weights or not Path(weights).expanduser().is_file():
        raise ValueError(
            f"judge.checkpoint: {weights!r} is no file; pass --config.judge.checkpoint=FILE, "
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
