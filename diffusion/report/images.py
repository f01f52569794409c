"""Pictures of samples."""

from pathlib import Path

import matplotlib.image
import numpy as np
from jaxtyping import Int, UInt8

GAP = 2  # pixels between pictures
SMALLEST = 64  # pictures are enlarged by a whole factor to about this height


def pictures(
    tokens: Int[np.ndarray, "N L"], shape: tuple[int, int, int], values: int = 256
) -> UInt8[np.ndarray, "N H W C"]:
    """Bytes of channel-major tokens 0 .. values-1; raises ValueError for a value outside."""
    height, width, colours = shape
    tokens = np.asarray(tokens)
    outside = tokens[(tokens < 0) | (tokens >= values)]
    if outside.size:
        raise ValueError(f"a picture cannot show the value {int(outside[0])}: it lies outside 0 .. {values - 1}")
    planes = tokens.reshape(-1, colours, height, width).transpose(0, 2, 3, 1)
    return np.round(planes * (255 / (values - 1))).astype(np.uint8)


def image_grid(
    path: Path, tokens: Int[np.ndarray, "N L"], shape: tuple[int, int, int], columns: int, values: int = 256
) -> None:
    """Write a PNG of all pictures, row by row, on white.

    Raises:
      ValueError: for a value outside 0 .. values-1.
    """
    shown = pictures(tokens, shape, values)
    height, width, _ = shape
    zoom = max(1, round(SMALLEST / height))
    shown = shown.repeat(zoom, axis=1).repeat(zoom, axis=2)
    rows, columns = -(-len(shown) // columns), min(columns, len(shown))
    step_down, step_right = zoom * height + GAP, zoom * width + GAP
    canvas = np.full((rows * step_down - GAP, columns * step_right - GAP, 3), 255, np.uint8)
    for number, picture in enumerate(shown):
        top, left = number // columns * step_down, number % columns * step_right
        canvas[top : top + zoom * height, left : left + zoom * width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(path, canvas)
