"""Detection of the glyphs in an image by template matching, and verdicts on whether it fulfills its prompt."""

import numpy as np
from etils import epy
from jaxtyping import Float, Shaped, UInt8

from diffusion.glyphs.world import EXTENT, GLYPHS, PALETTE, SIDE
from diffusion.metrics import geneval
from diffusion.metrics.geneval import Detection, Metadata

with epy.lazy_imports():
    from scipy import ndimage

Image = UInt8[np.ndarray, "16 16 3"] | Float[np.ndarray, "16 16 3"]

THRESHOLD = 0.7
# Share of the distance from background to palette color beyond which a pixel is foreground.
FOREGROUND = 0.45
MIN_AREA = 5
SHIFT = 1

NAMES, COLORS = tuple(GLYPHS), tuple(PALETTE)
LEVELS = np.stack(list(PALETTE.values()))
WINDOW = EXTENT + 2 * SHIFT
# Every glyph at every shift of -1, 0, 1 in rows and columns, inside a window with one pixel to spare around it.
SHIFTED_MASKS = np.stack(
    [
        np.pad(mask, ((down, 2 * SHIFT - down), (across, 2 * SHIFT - across))).reshape(-1)
        for mask in GLYPHS.values()
        for down in range(2 * SHIFT + 1)
        for across in range(2 * SHIFT + 1)
    ]
).astype(np.float64)
AREAS = SHIFTED_MASKS.sum(axis=1)


def detect(image: Shaped[np.ndarray, "..."]) -> list[Detection]:
    """Detects every 4-connected patch of foreground of at least 5 pixels, as the glyph that matches it best.

    The background is the median of each channel. A pixel has the nearest palette color, and is foreground if
    |pixel - background| > 0.45 |color - background|. The score of a patch is its largest intersection over union with a
    glyph's mask, shifted by up to one pixel from the patch's corner; its color is the most frequent color of its
    pixels, and its box the bounding box. Values are bytes, or real numbers, which are clipped to [0, 1].

    Raises:
      ValueError: for an image of another shape, or with a value that is not finite.
    """
    image = np.asarray(image)
    if image.shape != (SIDE, SIDE, 3):
        raise ValueError(f"image: shape {image.shape}, not {(SIDE, SIDE, 3)}; pass row, column, red-green-blue")
    pixels = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    if not np.isfinite(pixels).all():
        raise ValueError(f"image: {np.sum(~np.isfinite(pixels))} values are not finite; the sampler has diverged")
    pixels = np.clip(pixels, 0, 1)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    nearest = np.linalg.norm(pixels[:, :, None, :] - LEVELS, axis=-1).argmin(axis=-1)
    reach = FOREGROUND * np.linalg.norm(LEVELS - background, axis=-1)
    foreground = np.linalg.norm(pixels - background, axis=-1) > reach[nearest]
    patches, _ = ndimage.label(foreground)  # pyright: ignore[reportGeneralTypeIssues]  (a pair without `output`)
    padded = np.pad(patches, (SHIFT, WINDOW))
    detections = []
    for index, (rows, columns) in enumerate(ndimage.find_objects(patches), start=1):
        patch = patches == index
        area = patch.sum()
        if area < MIN_AREA:
            continue
        window = padded[rows.start : rows.start + WINDOW, columns.start : columns.start + WINDOW] == index
        shared = SHIFTED_MASKS @ window.reshape(-1)
        overlap = shared / (AREAS + area - shared)
        best = int(overlap.argmax())
        color = COLORS[np.bincount(nearest[patch]).argmax()]
        box = (columns.start, rows.start, columns.stop, rows.stop)
        detections.append(Detection(NAMES[best // (2 * SHIFT + 1) ** 2], float(overlap[best]), box, color))
    return detections


def check(image: Image, metadata: Metadata) -> bool:
    """Whether the image fulfills its prompt, by GenEval's rules on detections with scores above 0.7."""
    return geneval.correct(metadata, detect(image), THRESHOLD, THRESHOLD)


def prompt_reward(image: Image, metadata: Metadata) -> float:
    """GenEval's graded reward of the image for its prompt, in [0, 1]; 1 if and only if `check` is true."""
    return geneval.reward(metadata, detect(image), THRESHOLD, THRESHOLD)
