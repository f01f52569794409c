"""Public rewards of images as folders of weights: CLIP and HPS in two layouts, and ImageReward."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from diffusion.convert.clip import load_clip
from diffusion.convert.image_reward import load_image_reward
from diffusion.nets.sd.blip import IMAGE_REWARD
from diffusion.nets.sd.clip import CLIP, CLIP_H, CLIP_L
from experiments.convert.folder import Conversion, draws, files_of
from experiments.convert.pipelines import ROWS, VOCABULARY
from experiments.published import open_weights, sizes_of

PIPELINE = "stable-diffusion-v1-5"
# The projection of image features in the layouts of Hugging Face, and of OpenCLIP and HPS.
PROJECTIONS = ("visual_projection.weight", "visual.proj")


def clip(path: Path) -> Conversion:
    """What to write for a CLIP of both encoders, ViT-L/14 with its vocabulary or ViT-H/14, as in HPS v2.1.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing, not readable, or of another model.
    """
    tensors = open_weights(path, "clip")
    name, net = clip_of(tensors, path)
    folder = path if path.is_dir() else path.parent
    copies = {file: folder / file for file in VOCABULARY if (folder / file).is_file()}
    if name == "clip" and not copies:
        raise ValueError(f"checkpoint: '{folder}' has no {' and '.join(VOCABULARY[:2])}; copy them beside the weights")
    return Conversion(
        parts={"clip": lambda: load_clip(net, tensors, str(path))["params"]},
        copies=copies if name == "clip" else {},
        sources=files_of(path, "clip") | (copies if name == "clip" else {}),
        description={"sizes": {part: sizes_of(getattr(net, part)) for part in ("text_model", "vision_model")}},
        uses=partial(
            draws,
            ROWS["sd15"],
            {f"text_to_image.{name}": "NAME", "text_to_image.rewards": f"('{name}',)"},
            (PIPELINE,) if name == "clip" else (PIPELINE, "clip-vit-large-patch14"),
        ),
    )


def clip_of(tensors: Mapping[str, np.ndarray], path: Path) -> tuple[str, CLIP]:
    """The field of `text_to_image` that a CLIP is for, and its network, by the shape of its projection of images."""
    for name in tensors:
        if name.removeprefix("module.") in PROJECTIONS:
            shape = set(tensors[name].shape)
            for field, net in (("clip", CLIP_L), ("hps", CLIP_H)):
                if shape == {net.vision_model.projection, net.vision_model.width}:
                    return field, net
    raise ValueError(
        f"checkpoint: '{path}' has no projection of images of CLIP ViT-L/14 or ViT-H/14; pass a file with both encoders"
    )


def reward(path: Path) -> Conversion:
    """What to write for ImageReward, whose vocabulary is that of another model.

    Raises:
      ValueError, FileNotFoundError: for a file that is missing, not readable, or of another model.
    """
    tensors = open_weights(path, "image_reward")
    return Conversion(
        parts={"image_reward": lambda: load_image_reward(tensors, str(path), IMAGE_REWARD)["params"]},
        copies={},
        sources=files_of(path, "image_reward"),
        description={"sizes": sizes_of(IMAGE_REWARD)},
        uses=partial(draws, ROWS["sd15"], {"text_to_image.image_reward": "NAME"}, (PIPELINE, "bert-base-uncased")),
    )
