"""Infilling: hidden spans, prompts, and the two scores."""

import numpy as np
import pytest

from diffusion.metrics import infilling
from tests.checks import refused

WINDOWS = np.arange(24).reshape(3, 8)


def test_spans_depend_on_seed_and_index_alone():
    starts = infilling.spans(300, 10, 3, seed=4)
    assert starts.shape == (300,) and (infilling.spans(20, 10, 3, seed=4) == starts[:20]).all()
    assert (infilling.spans(300, 10, 3, seed=5) != starts).any()
    # At least one token of context on both sides: starts 1 .. 6, about equally often.
    assert set(starts) == set(range(1, 7)) and np.bincount(starts)[1:].min() > 30
    assert infilling.spans(4, 3, 1, seed=0).tolist() == infilling.spans(4, 10, 8, seed=0).tolist() == [1] * 4
    assert infilling.spans(0, 10, 3, seed=0).shape == (0,)


def test_masks_cover_the_span_exactly():
    prompts = infilling.masked(WINDOWS, np.array([1, 4, 5]), 2, mask_id=99)
    assert prompts.tolist() == [
        [0, 99, 99, 3, 4, 5, 6, 7],
        [8, 9, 10, 11, 99, 99, 14, 15],
        [16, 17, 18, 19, 20, 99, 99, 23],
    ]
    assert WINDOWS[0, 1] == 1 and prompts.dtype == WINDOWS.dtype
    assert infilling.masked(WINDOWS.astype(np.uint8), np.array([1, 4, 5]), 2, mask_id=256).max() == 256
    assert infilling.masked(WINDOWS.astype(np.int32), np.array([1, 4, 5]), 2, mask_id=256).dtype == np.int32


def test_scores_count_windows_and_tokens_of_the_spans_alone():
    starts, guess = np.array([1, 4, 5]), WINDOWS.copy()
    assert infilling.score(guess, WINDOWS, starts, 2) == {"infill_exact": 1, "infill_accuracy": 1}
    guess[1, 4] = 0
    guess[:, 0] = 5  # outside the spans
    assert infilling.score(guess, WINDOWS, starts, 2) == pytest.approx(
        {"infill_exact": 2 / 3, "infill_accuracy": 5 / 6}
    )
    blank = np.full_like(WINDOWS, 99)
    assert infilling.score(blank, WINDOWS, starts, 2) == {"infill_exact": 0, "infill_accuracy": 0}


def test_impossible_spans_are_named():
    starts = np.array([1, 4, 5])
    cases = [
        (lambda: infilling.masked(WINDOWS, np.array([0, 4, 5]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, np.array([1, 4, 6]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, starts, 0, 9), "is empty"),
        (lambda: infilling.masked(WINDOWS, starts[:2], 2, 9), "as many starts"),
        (lambda: infilling.score(WINDOWS[:2], WINDOWS, starts, 2), "differ in shape"),
        (lambda: infilling.score(WINDOWS[:0], WINDOWS[:0], starts[:0], 2), "no window to score"),
    ]
    for width in (0, -1, 9, 10):
        cases.append((lambda width=width: infilling.spans(2, 10, width, seed=0), "of 10 .*sample.infill=1 to 8"))
    for call, words in cases:
        with refused(f"^sample.infill: .*{words}"):
            call()
