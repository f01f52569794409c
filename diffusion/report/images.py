"""PNG files with grids of sampled images."""

import textwrap
from pathlib import Path

import numpy as np
from etils import epy
from jaxtyping import Int, UInt8

from diffusion.storage import written

with epy.lazy_imports():
    import matplotlib.image
    from matplotlib import figure as figures

GAP = 2  # pixels between images
MIN_HEIGHT = 64  # images are enlarged by an integer factor to about this height in pixels


def as_bytes(
    tokens: Int[np.ndarray, "N L"], shape: tuple[int, int, int], values: int = 256
) -> UInt8[np.ndarray, "N H W C"]:
    """Return images in bytes for channel-major tokens 0 .. values - 1.

    Raises:
      ValueError: if a token lies outside of this range.
    """
    height, width, colors = shape
    tokens = np.asarray(tokens)
    outside = tokens[(tokens < 0) | (tokens >= values)]
    if outside.size:
        raise ValueError(f"an image cannot show the value {int(outside[0])}: it lies outside 0 .. {values - 1}")
    planes = tokens.reshape(-1, colors, height, width).transpose(0, 2, 3, 1)
    return np.round(planes * (255 / (values - 1))).astype(np.uint8)


def image_grid(
    path: Path, tokens: Int[np.ndarray, "N L"], shape: tuple[int, int, int], columns: int, values: int = 256
) -> None:
    """Write a PNG of all images, in row-major order on a white background.

    Raises:
      ValueError: if a token does not lie in 0 .. values - 1.
    """
    images = as_bytes(tokens, shape, values)
    zoom = max(1, round(MIN_HEIGHT / shape[0]))
    canvas = tiled(images.repeat(zoom, axis=1).repeat(zoom, axis=2), min(columns, len(images)), GAP)
    with written(path) as file:
        matplotlib.image.imsave(file, canvas)


def tiled(images: UInt8[np.ndarray, "N H W C"], columns: int, gap: int) -> UInt8[np.ndarray, "Y X 3"]:
    """Return one image with all images in row-major order, with gaps of white pixels between them."""
    count, height, width, _ = images.shape
    rows, down, right = -(-count // columns), height + gap, width + gap
    canvas = np.full((rows * down - gap, columns * right - gap, 3), 255, np.uint8)
    for number, image in enumerate(images):
        top, left = number // columns * down, number % columns * right
        canvas[top : top + height, left : left + width] = image
    return canvas


def labeled_grid(path: Path, columns: dict[str, UInt8[np.ndarray, "R N H W C"]], rows: list[str], title: str) -> None:
    """Write a PNG with one column per label and one row per text; each cell shows N images side by side."""
    count = next(iter(columns.values())).shape[1]
    width, height = 0.75 * count * len(columns) + 2.2, 0.78 * len(rows) + 1.1
    figure = figures.Figure(figsize=(width, height), dpi=130)
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for column, (label, groups) in enumerate(columns.items()):
        for row, group in enumerate(groups):
            cell = axes[row, column]
            cell.imshow(tiled(group, count, 1), interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if not row:
                cell.set_title(textwrap.fill(label, 9 * count), fontsize=8)
            if not column:
                cell.set_ylabel(rows[row].replace(" and ", "\nand "), rotation=0, ha="right", va="center", fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    with written(path) as file:
        figure.savefig(file)
