"""Grids of images: positions of pixels, and errors for invalid values."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from diffusion.report.images import GAP, as_bytes, image_grid, labeled_grid


def test_tokens_are_channel_major_bytes():
    tokens = np.arange(24).reshape(2, 12)  # two images of (c, h, w) = (3, 2, 2)
    shown = as_bytes(tokens, (2, 2, 3))
    assert shown.shape == (2, 2, 2, 3) and shown.dtype == np.uint8
    assert shown[0, 0, 1].tolist() == [1, 5, 9] and shown[1, 1, 0].tolist() == [14, 18, 22]
    assert as_bytes(np.array([[0, 7, 15, 1]]), (2, 2, 1), values=16)[0, :, :, 0].tolist() == [[0, 119], [255, 17]]


@pytest.mark.parametrize("value", [256, -1])
def test_invalid_values_raise(value, tmp_path):
    with pytest.raises(ValueError, match=f"cannot show the value {value}: it lies outside 0 .. 255"):
        image_grid(tmp_path / "a.png", np.full((1, 4), value), (2, 2, 1), 1)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("colors", [1, 3])
def test_grid_has_all_images_enlarged_in_row_major_order(tmp_path, colors):
    tokens = np.random.default_rng(0).integers(0, 256, (5, colors * 32 * 16))
    image_grid(tmp_path / "new" / "grid.png", tokens, (32, 16, colors), columns=3)
    read = np.round(matplotlib.image.imread(tmp_path / "new" / "grid.png")[..., :3] * 255).astype(int)
    down, right = 64 + GAP, 32 + GAP
    assert read.shape == (2 * down - GAP, 3 * right - GAP, 3)
    for number, image in enumerate(as_bytes(tokens, (32, 16, colors))):
        top, left = number // 3 * down, number % 3 * right
        cell = read[top : top + 64, left : left + 32]
        np.testing.assert_array_equal(cell[::2, ::2], np.broadcast_to(image, (32, 16, 3)))
        np.testing.assert_array_equal(cell[1::2, 1::2], cell[::2, ::2])
    assert (read[64:66] == 255).all() and (read[down:, 2 * right :] == 255).all()


def test_grid_has_labels_and_texts(tmp_path, monkeypatch):
    """There is one column per label and one row per text with any backend; each cell has its images with a gap."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path: (figures.append(self), path.touch()))
    columns = {name: np.full((2, 3, 4, 4, 3), value, np.uint8) for name, value in (("base", 0), ("guided", 9))}
    labeled_grid(tmp_path / "new" / "grid.png", columns, ["a ring", "a plus and a ring"], "title")
    (figure,) = figures
    axes = figure.axes
    assert [each.get_title() for each in axes] == ["base", "guided", "", ""]
    assert [each.get_ylabel() for each in axes] == ["a ring", "", "a plus\nand a ring", ""]
    shown = axes[3].images[0].get_array()
    assert shown.shape == (4, 3 * 5 - 1, 3)
    assert (shown[:, 4] == 255).all() and (shown[:, :4] == 9).all()
