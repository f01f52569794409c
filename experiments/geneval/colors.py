"""Colors of objects by CLIP, as GenEval classifies them."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float, UInt8

from diffusion.metrics.geneval import COLORS
from experiments.geneval.segments import Segment

GREY = 0x99
TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")

Image = UInt8[np.ndarray, "H W 3"]
# Features of images and of texts, of any norm.
ImageFeatures = Callable[[list[np.ndarray]], Float[np.ndarray, "N D"]]
TextFeatures = Callable[[list[str]], Float[np.ndarray, "N D"]]
# The color of each object of a class.
Colors = Callable[[Image, Sequence[Segment], str], list[str]]


def unit(features: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
    """Return vectors divided by their norms."""
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def crop(image: Image, segment: Segment) -> UInt8[np.ndarray, "h w 3"]:
    """Return the box of an object, with grey outside of its mask."""
    left, top, right, bottom = (int(side) for side in segment.detection.box)
    alone = np.where(segment.mask[..., None], image, np.uint8(GREY))
    return alone[top:bottom, left:right]


def color_embeddings(text_features: TextFeatures, name: str) -> Float[np.ndarray, "C D"]:
    """Return the embedding of each color for a class: the normalized mean of the unit features of three prompts."""
    texts = [template.format(color=color, name=name) for color in COLORS for template in TEMPLATES]
    features = unit(text_features(texts)).reshape(len(COLORS), len(TEMPLATES), -1)
    return unit(features.mean(axis=1))


def color_classifier(image_features: ImageFeatures, text_features: TextFeatures) -> Colors:
    """Return a function from objects of a class to their colors, those with the largest cosine.

    The embeddings of a class are computed once.
    """
    embeddings = cache(lambda name: color_embeddings(text_features, name))

    def classify(image: Image, segments: Sequence[Segment], name: str) -> list[str]:
        features = unit(image_features([crop(image, segment) for segment in segments]))
        return [COLORS[index] for index in (features @ embeddings(name).T).argmax(axis=1)]

    return classify
