"""What goes into Mask2Former (Cheng et al., arXiv 2112.01527) and what its outputs mean, as in mmdet 2 on COCO.

These are functions of NumPy arrays; the network itself runs in PyTorch (`detector.py`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from diffusion.data.geneval import CLASSES
from diffusion.metrics.geneval import Detection

SHORT, LONG = 800, 1333  # sides that a resized image does not exceed
MULTIPLE = 32
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STANDARD_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
MOST = 100  # detections of an image, before a threshold

Size = tuple[int, int]


class Segment(NamedTuple):
    """An object of an image with its pixels."""

    detection: Detection
    mask: Bool[np.ndarray, "H W"]


def resized(x: Float[np.ndarray, "... h w"], size: Size) -> Float[np.ndarray, "... H W"]:
    """Return images at another size (height, width) by bilinear interpolation without antialiasing.

    Pixel i of n lies at (i + 1/2) / n; beyond the outer centers, values are those at the border. This is
    `interpolate(mode="bilinear", align_corners=False)` of PyTorch and `resize` of OpenCV.
    """
    for axis, outputs in ((-2, size[0]), (-1, size[1])):
        inputs = x.shape[axis]
        place = np.clip((np.arange(outputs) + 0.5) * (inputs / outputs) - 0.5, 0, inputs - 1)
        low = np.minimum(place.astype(int), max(inputs - 2, 0))
        shape = (outputs, 1) if axis == -2 else (outputs,)
        share = (place - low).astype(x.dtype).reshape(shape)
        before, after = x.take(low, axis), x.take(np.minimum(low + 1, inputs - 1), axis)
        x = before + share * (after - before)
    return x


def input_size(height: int, width: int) -> Size:
    """Return the largest size (height, width) of the same proportions with sides of at most 800 and 1333 pixels."""
    scale = min(SHORT / min(height, width), LONG / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def padded_size(size: Size) -> Size:
    """Return the next size with sides that are multiples of 32."""
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in size)
    return height, width


def preprocess(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "3 h w"]:
    """Return the input of the network: resized, rounded to 8 bits, normalized, and padded at the right and bottom.

    Padding is 0 after normalization, as the weights were trained. Square images have none.
    """
    size = input_size(*image.shape[:2])
    planes = np.rint(resized(image.transpose(2, 0, 1).astype(np.float32), size))
    planes = (planes - MEAN[:, None, None]) / STANDARD_DEVIATION[:, None, None]
    height, width = padded_size(size)
    return np.pad(planes, ((0, 0), (0, height - size[0]), (0, width - size[1])))


def class_probabilities(logits: Float[np.ndarray, "Q K"]) -> Float[np.ndarray, "Q K_1"]:
    """Return the softmax over classes and "no object", which comes last, without the latter."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True))[:, :-1]


def tight_box(mask: Bool[np.ndarray, "H W"]) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom) of a mask that is not empty, with exclusive ends."""
    (rows,), (columns,) = np.nonzero(mask.any(axis=1)), np.nonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def segments(
    class_logits: Float[np.ndarray, "Q K"], mask_logits: Float[np.ndarray, "Q h w"], size: Size, least: float = 0.0
) -> list[Segment]:
    """Return the objects of an image of this size (height, width) from the outputs of the network.

    The 100 most probable pairs of query and class are kept, so that a query may stand for several classes. Mask logits
    are interpolated to the padded input, cropped, and interpolated to the image; a mask is where they are positive, and
    the score of a pair is its probability times the mean of the sigmoid of the logits in the mask. Empty masks are
    dropped. Scores do not exceed probabilities: pairs with a probability of at most `least` are left out.

    Raises:
      ValueError: for another number of classes than 80 and "no object".
    """
    if class_logits.shape[1] != len(CLASSES) + 1:
        raise ValueError(
            f"geneval: the detector has {class_logits.shape[1] - 1} classes, not the {len(CLASSES)} of COCO; use a "
            "Mask2Former of COCO's instances"
        )
    inside = input_size(*size)
    probabilities = class_probabilities(class_logits.astype(np.float32))
    flat = probabilities.reshape(-1)
    best = [index for index in np.argsort(-flat, kind="stable")[:MOST] if flat[index] > np.float32(least)]
    masks: dict[int, tuple[np.ndarray, float]] = {}
    found = []
    for index in best:
        query, label = divmod(int(index), len(CLASSES))
        if query not in masks:
            masks[query] = _mask(mask_logits[query].astype(np.float32), inside, size)
        mask, certainty = masks[query]
        if mask.any():
            score = float(np.float32(flat[index] * certainty))
            found.append(Segment(Detection(CLASSES[label], score, tight_box(mask)), mask))
    return found


def _mask(logits: Float[np.ndarray, "h w"], inside: Size, size: Size) -> tuple[Bool[np.ndarray, "H W"], float]:
    """A mask and the mean of the sigmoid in it; 0 for an empty mask."""
    at_input = resized(logits, padded_size(inside))[: inside[0], : inside[1]]
    at_image = resized(at_input, size)
    mask = at_image > 0
    return mask, float((1 / (1 + np.exp(-at_image[mask].astype(np.float64)))).mean()) if mask.any() else 0.0
