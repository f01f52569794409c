"""Infilling: hidden spans, prompts, and the two scores."""

import numpy as np
import pytest

from diffusion.metrics import infilling
from tests.checks import refused

WINDOWS = np.arange(24).reshape(3, 8)
STARTS = np.array([1, 4, 5])


def test_spans_depend_on_seed_and_index_alone():
    starts = infilling.spans(300, 10, 3, seed=4)
    assert (infilling.spans(20, 10, 3, seed=4) == starts[:20]).all()
    assert (infilling.spans(300, 10, 3, seed=5) != starts).any()
    # At least one token of context on both sides: starts 1 .. 6, about equally often.
    assert set(starts) == set(range(1, 7)) and np.bincount(starts)[1:].min() > 30
    assert infilling.spans(4, 10, 8, seed=0).tolist() == [1] * 4


def test_masks_cover_the_span_exactly():
    prompts = infilling.masked(WINDOWS, STARTS, 2, mask_id=99)
    assert prompts.tolist() == [
        [0, 99, 99, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 99, 99, 14, 15],
        [16, 17, 18, 19, 20, 99, 99, 23],
    ]
    assert WINDOWS[0, 1] == 1 and prompts.dtype == WINDOWS.dtype
    assert infilling.masked(WINDOWS.astype(np.uint8), STARTS, 2, mask_id=256).max() == 256


def test_scores_count_windows_and_tokens_of_the_spans_alone():
    guess = WINDOWS.copy()
    assert infilling.score(guess, WINDOWS, STARTS, 2) == {"infill_exact": 1, "infill_accuracy": 1}
    guess[1, 4] = 0
    guess[:, 0] = 5  # outside the spans
    expected = {"infill_exact": 2 / 3, "infill_accuracy": 5 / 6}
    assert infilling.score(guess, WINDOWS, STARTS, 2) == pytest.approx(expected)


def test_impossible_spans_are_named():
    for call, words in (
        (lambda: infilling.masked(WINDOWS, np.array([0, 4, 5]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, np.array([1, 4, 6]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, STARTS, 0, 9), "is empty"),
        (lambda: infilling.masked(WINDOWS, STARTS[:2], 2, 9), "as many starts"),
        (lambda: infilling.score(WINDOWS[:2], WINDOWS, STARTS, 2), "differ in shape"),
        (lambda: infilling.score(WINDOWS[:0], WINDOWS[:0], STARTS[:0], 2), "no window to score"),
        (lambda: infilling.spans(2, 10, 0, seed=0), "of 10 .*sample.infill=1 to 8"),
        (lambda: infilling.spans(2, 10, 9, seed=0), "of 10 .*sample.infill=1 to 8"),
    ):
        with refused(f"^sample.infill: .*{words}"):
            call()
