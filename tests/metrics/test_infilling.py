"""Infilling: hidden spans and lines, prompts, and the two scores."""

import numpy as np
import pytest

from diffusion.metrics import infilling
from tests.checks import refused

WINDOWS = np.arange(24).reshape(3, 8)
NEWLINE, SPACE, TAB, EOS = 10, 32, 9, 256


def coded(*texts):
    return np.array([[EOS if letter == "$" else ord(letter) for letter in text] for text in texts], np.int32)


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
    prompts = infilling.masked(WINDOWS, np.array([1, 4, 5]), np.array([6, 1, 2]), mask_id=99)
    assert (prompts == 99).sum(axis=1).tolist() == [6, 1, 2]
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
    # Tokens are pooled over spans of unequal width: 1 of 9 is wrong.
    assert infilling.score(guess, WINDOWS, starts, np.array([6, 1, 2])) == pytest.approx(
        {"infill_exact": 2 / 3, "infill_accuracy": 8 / 9}
    )
    blank = np.full_like(WINDOWS, 99)
    assert infilling.score(blank, WINDOWS, starts, 2) == {"infill_exact": 0, "infill_accuracy": 0}


def test_one_whole_line_per_window():
    windows = coded(
        "ab\ncd\nefg",  # one inner line
        "abcdefghi",  # no line end
        "a\n \t\nbcd\n",  # blank lines do not count
        "\n\n\n\n\n\n\n\n\n",
        "a\nbcde\nfg",  # too long
        "a\nb$c\nd\nx",  # the end of a document is inside
        "\nxyz\n\n ab",  # from the first token on
    )
    hidden = infilling.lines(windows, NEWLINE, 3, seed=0, blank=(SPACE, TAB), special=(EOS,))
    assert hidden.rows.tolist() == [0, 2, 5, 6]
    assert hidden.starts.tolist() == [3, 5, 6, 1] and hidden.widths.tolist() == [2, 3, 1, 3]
    prompts = infilling.masked(windows[hidden.rows], hidden.starts, hidden.widths, mask_id=ord("_"))
    assert "".join(map(chr, prompts[0])) == "ab\n__\nefg" and "".join(map(chr, prompts[3])) == "\n___\n\n ab"
    assert infilling.lines(windows, NEWLINE, 3, seed=0, special=(EOS,)).rows.tolist() == [0, 2, 5, 6]
    assert infilling.lines(windows, NEWLINE, 8, seed=0).rows.tolist() == [0, 2, 4, 5, 6]


def test_lines_are_uniform_and_depend_on_the_index():
    windows = np.repeat(coded("a\nb\ncd\nefg\nh"), 300, axis=0)
    hidden = infilling.lines(windows, NEWLINE, 3, seed=1)
    assert hidden.rows.tolist() == list(range(300))
    assert set(hidden.starts) == {2, 4, 7} and all((hidden.starts == start).sum() > 70 for start in (2, 4, 7))
    assert (hidden.widths == hidden.starts // 3 + 1).all()
    again = infilling.lines(np.concatenate([coded("no line here"), windows[1:50]]), NEWLINE, 3, seed=1)
    assert again.rows.tolist() == list(range(1, 50)) and (again.starts == hidden.starts[1:50]).all()
    assert (infilling.lines(windows, NEWLINE, 3, seed=2).starts != hidden.starts).any()


def test_impossible_spans_are_named():
    starts = np.array([1, 4, 5])
    cases = [
        (lambda: infilling.lines(coded("ab\n"), NEWLINE, 3, 0), "none of 1 windows holds a whole line"),
        (lambda: infilling.lines(coded("\nabc\n"), NEWLINE, 0, 0), "larger --config.sample.infill"),
        (lambda: infilling.masked(WINDOWS, np.array([0, 4, 5]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, np.array([1, 4, 6]), 2, 9), "leaves no token on each side"),
        (lambda: infilling.masked(WINDOWS, starts, np.array([0, 1, 1]), 9), "is empty"),
        (lambda: infilling.masked(WINDOWS, starts[:2], 2, 9), "as many starts"),
        (lambda: infilling.masked(WINDOWS, starts, np.array([1, 1]), 9), "as many starts and widths"),
        (lambda: infilling.score(WINDOWS[:2], WINDOWS, starts, 2), "differ in shape"),
        (lambda: infilling.score(WINDOWS[:0], WINDOWS[:0], starts[:0], 2), "no window to score"),
    ]
    for width in (0, -1, 9, 10):
        cases.append((lambda width=width: infilling.spans(2, 10, width, seed=0), "of 10 .*sample.infill=1 to 8"))
    for call, words in cases:
        with refused(f"^sample.infill: .*{words}"):
            call()
