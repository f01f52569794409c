"""The detector of GenEval in PyTorch: Mask2Former with a Swin backbone, from a folder of `transformers`, or random.

The published scores are those of mmdet's weights. Those of `transformers` (mask2former-swin-small-coco-instance) were
trained by the same recipe, but are others: compare with the published scores before relying on small differences.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from diffusion.data.geneval import CLASSES
from experiments.geneval.segments import Segment, preprocess, segments

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
RANDOM = "random"
RANDOM_LABEL = "random weights, for debugging only"
MISSING = "geneval: the detector needs torch and transformers; pip install torch transformers"


class Detector(NamedTuple):
    """A detector with the name that results have it under; `find` returns objects above the lower threshold."""

    label: str
    find: Callable[[UInt8[np.ndarray, "H W 3"]], list[Segment]]


def check_detector() -> None:
    """Raise ValueError if torch or transformers are missing."""
    if not (find_spec("torch") and find_spec("transformers")):
        raise ValueError(MISSING)


def load_detector(folder: str) -> Detector:
    """Return the detector of a folder with config.json and weights, or for "random" a tiny one with random weights.

    Raises:
      ValueError: if torch or transformers are missing, or if the folder holds no whole detector of COCO's 80 classes.
    """
    check_detector()
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    model = random_network() if folder == RANDOM else _load(folder, transformers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()

    def find(image: UInt8[np.ndarray, "H W 3"]) -> list[Segment]:
        with torch.inference_mode():
            output = model(pixel_values=torch.from_numpy(preprocess(image))[None].to(device))
        logits = (output.class_queries_logits[0], output.masks_queries_logits[0])
        classes, masks = (each.float().cpu().numpy() for each in logits)
        return segments(classes, masks, image.shape[:2], THRESHOLD)

    return Detector(RANDOM_LABEL if folder == RANDOM else Path(folder).resolve().name, find)


def _load(folder: str, transformers: Any) -> Any:
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(
            f"--detector: '{folder}' has no config.json; pass a folder with mask2former-swin-small-coco-instance, or "
            "--detector=random to try the command out"
        )
    kind = transformers.Mask2FormerForUniversalSegmentation
    try:
        model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # files may be missing, damaged, or of another kind of model
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:120]
        raise ValueError(f"--detector: '{folder}' cannot be loaded as Mask2Former ({reason})") from None
    absent = sorted(report["missing_keys"])
    if absent:
        raise ValueError(
            f"--detector: '{folder}' lacks {len(absent)} weights of Mask2Former, such as '{absent[0]}'; download it "
            "again"
        )
    if model.config.num_labels != len(CLASSES):
        raise ValueError(
            f"--detector: '{folder}' has {model.config.num_labels} classes, not the {len(CLASSES)} of COCO's "
            "instances; pass mask2former-swin-small-coco-instance"
        )
    return model


def random_network(seed: int = 0) -> Any:
    """Return a Mask2Former of 0.1 million random weights that sees objects at random, some above the threshold."""
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]

    stages = [f"stage{number}" for number in range(1, 5)]
    backbone = transformers.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=5, mlp_ratio=2.0, out_features=stages
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=20,
        num_labels=len(CLASSES),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.Mask2FormerForUniversalSegmentation(config)
        # As initialized, masks are the whole image, and no probability passes the threshold.
        torch.nn.init.normal_(model.class_predictor.weight, std=2.0)
        for name, parameter in model.named_parameters():
            if "mask_embedder" in name:
                torch.nn.init.normal_(parameter, std=1.0)
    return model
