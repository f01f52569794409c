"""What the tests of plots share: figures as they are when they are written, and pixels that are not blank."""

import matplotlib.image
import pytest

from diffusion.report import plots


@pytest.fixture
def picture():
    """`picture(path)` gives the pixels of a PNG; fails for a blank one."""

    def read(path):
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[0] > 200 and pixels.std() > 0.01
        return pixels

    return read


@pytest.fixture
def drawn(monkeypatch):
    """Figures, as they are when they are written."""
    figures, write = [], plots.save

    def save(figure, path):
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "save", save)
    return figures
