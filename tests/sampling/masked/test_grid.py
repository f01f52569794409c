"""Tables of masked samplers: counts, warped times, temperatures, and what is refused."""

import numpy as np
import pytest

from diffusion.sampling.masked.grid import Window, exact_masks, grid
from diffusion.schedules.masking import LogLinear, Polynomial
from tests.checks import refused

CUBIC = Polynomial(3.0)  # alpha = (1 - t)^3


def test_counts_are_exact_where_float32_would_round_up():
    counts = exact_masks(np.array([0.1, 0.0, 1.0]), 1000)[:, [0, 10, 1000]]
    np.testing.assert_array_equal(counts, [[0, 1, 100], [0, 0, 0], [0, 10, 1000]])


def test_temperature_ramps_with_the_data_time():
    rows = grid(LogLinear(), 4, 8, end=0.0, temperature=1.0, ramp=(-0.4, 2.0))
    np.testing.assert_allclose(rows.temperature, [1, 1 - 0.4 / 16, 0.9, 1 - 0.4 * 9 / 16], rtol=1e-6)
    np.testing.assert_allclose(grid(LogLinear(), 4, 8, temperature=0.7).temperature, 0.7, rtol=1e-6)


def test_warps_apply_to_all_columns_that_depend_on_time():
    """tau -> 1 - (1 - tau)^2 is t -> t^2, and the temperature ramp reads the warped time."""
    rows = grid(CUBIC, 4, 8, end=0.0, ramp=(1.0, 1.0), warp=(1.0, 2.0, 0.0))
    times = np.array([1, 9 / 16, 1 / 4, 1 / 16, 0])
    np.testing.assert_allclose(rows.time, times[:-1], atol=1e-7)
    np.testing.assert_allclose(rows.next_time, times[1:], atol=1e-7)
    levels = 1 - (1 - times) ** 3
    np.testing.assert_allclose(rows.keep_mask_prob, levels[1:] / levels[:-1], atol=1e-6)
    np.testing.assert_allclose(rows.temperature, 2 - times[:-1], rtol=1e-6)
    np.testing.assert_array_equal(rows.masks, exact_masks(levels[1:], 8))
    scaled = grid(CUBIC, 4, 8, end=0.2, warp=(0.9, 1.0, 0.1))
    np.testing.assert_allclose(scaled.time, 0.9 * np.linspace(1, 0.2, 5)[:-1] - 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"sample\.steps"),
        ({"end": 1.0}, r"sample\.end"),
        ({"temperature": -1.0}, r"sample\.temperature:"),
        ({"nucleus": 0.0}, r"sample\.nucleus"),
        ({"window": Window(0.6, 0.5)}, r"sample\.remask: 0 <= off <= on <= 1"),
        ({"warp": (1.0, 2.0)}, r"sample\.warp: must be empty or \(a, p, c\)"),
        ({"warp": (1.0, 0.0, 0.0)}, r"sample\.warp: .* must make times fall"),  # "off" in the public code
        ({"warp": (1.2, 1.0, 0.0)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"warp": (1.0, 1.0, 0.1)}, r"sample\.warp: .* within \[0, 1\]"),
        ({"ramp": (-1.5, 1.0)}, r"sample\.temperature_ramp: \(-1\.5, 1\.0\) makes"),
        ({"ramp": (0.5, -1.0)}, r"sample\.temperature_ramp: \(0\.5, -1\.0\) has"),
    ],
)
def test_bad_tables_name_their_field(options, message):
    with refused(message):
        grid(LogLinear(), **{"steps": 8, "length": 8, "end": 0.0} | options)
