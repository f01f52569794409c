"""Fixtures for tests of plots: figures before they are closed, and pixels of PNG files."""

import matplotlib.image
import pytest

from diffusion.report import plots


@pytest.fixture
def pixels():
    """Return `pixels(path)`, which reads a PNG and fails for a blank image."""

    def read(path):
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[0] > 200 and pixels.std() > 0.01
        return pixels

    return read


@pytest.fixture
def figures(monkeypatch):
    """Return the list of figures, as they are when they are written."""
    figures, write = [], plots.save

    def save(figure, path):
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "save", save)
    return figures
