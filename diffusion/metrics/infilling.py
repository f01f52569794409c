"""Infilling: hide a span or a line of held-out windows, and score what a sampler puts in its place."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer

Width = int | Int[np.ndarray, " W"]


class Lines(NamedTuple):
    """One hidden line a window: the windows that have one (their rows), where it starts, and its tokens."""

    kept: Int[np.ndarray, " M"]
    starts: Int[np.ndarray, " M"]
    widths: Int[np.ndarray, " M"]


def spans(count: int, length: int, width: int, seed: int) -> Int[np.ndarray, " N"]:
    """Where the hidden span of `width` tokens starts in each of `count` windows of `length` tokens.

    Uniform over the starts that leave at least one token on both sides, drawn from (seed, index of the window) alone.
    Raises: ValueError when a width leaves no context, or no token to fill in.
    """
    if not 1 <= width <= length - 2:
        raise ValueError(
            f"sample.infill: a span of {width} tokens in windows of {length} leaves nothing to fill in, or no token "
            f"on each side; pass --config.sample.infill=1 to {length - 2}"
        )
    draws = [np.random.default_rng([seed, index]).integers(1, length - width) for index in range(count)]
    return np.array(draws, np.int64)


def lines(
    tokens: Integer[np.ndarray, "N L"],
    newline: int,
    width: int,
    seed: int,
    blank: Collection[int] = (),
    special: Collection[int] = (),
) -> Lines:
    """One whole line of each window, for tokens that are bytes or characters, uniform over its lines that qualify.

    A line runs from behind one newline to the next one, has 1 to `width` tokens, one of them not in `blank`, and none
    in `special` (the ends of documents). Windows without one are left out. A choice depends on the seed and the
    window's index and tokens alone. A sampler that is shown the gap is told the line's length.
    Raises: ValueError when no window has such a line.
    """
    kept, starts, widths = [], [], []
    for index, window in enumerate(np.asarray(tokens)):
        ends = np.flatnonzero(window == newline)
        ink = _before(~np.isin(window, [newline, *blank, *special]))
        marks = _before(np.isin(window, list(special)))
        first, last = ends[:-1] + 1, ends[1:]
        fits = (last - first <= width) & (ink[last] > ink[first]) & (marks[last] == marks[first])
        if fits.any():
            line = np.random.default_rng([seed, index]).choice(np.flatnonzero(fits))
            kept.append(index)
            starts.append(first[line])
            widths.append(last[line] - first[line])
    if not kept:
        raise ValueError(
            f"sample.infill: none of {len(tokens)} windows holds a whole line of 1 to {width} tokens; pass a larger "
            "--config.sample.infill, or longer windows"
        )
    return Lines(*(np.array(column, np.int64) for column in (kept, starts, widths)))


def _before(marked: Bool[np.ndarray, " L"]) -> Int[np.ndarray, " L"]:
    """How many are marked before each position."""
    return np.cumsum(marked) - marked


def masked(
    tokens: Integer[np.ndarray, "N L"], starts: Int[np.ndarray, " S"], width: Width, mask_id: int
) -> Integer[np.ndarray, "N L"]:
    """The windows with their span, of one width or one a window, replaced by masks.

    Raises: ValueError when a span leaves no context on one side, or the numbers of windows differ.
    """
    tokens = np.asarray(tokens)
    dtype = np.result_type(tokens, np.min_scalar_type(mask_id))  # bytes have no room for the mask
    return np.where(_inside(tokens.shape, starts, width), np.array(mask_id, dtype), tokens)


def score(
    tokens: Integer[np.ndarray, "N L"], truth: Integer[np.ndarray, "M K"], starts: Int[np.ndarray, " S"], width: Width
) -> dict[str, float]:
    """How well spans were filled in, beside the windows that they were cut from.

    `infill_exact`: share of windows whose whole span is reproduced; `infill_accuracy`: share of the tokens in all
    spans that are the true ones. Text can be filled in well and otherwise: compare methods at equal width.
    Raises: ValueError as `masked` does, or when there is no window.
    """
    tokens, truth = np.asarray(tokens), np.asarray(truth)
    if tokens.shape != truth.shape:
        raise ValueError(f"sample.infill: samples {tokens.shape} and held-out windows {truth.shape} differ in shape")
    inside = _inside(tokens.shape, starts, width)
    if not len(tokens):
        raise ValueError("sample.infill: no window to score; pass a larger --config.sample.count")
    wrong = (tokens != truth) & inside
    return {
        "infill_exact": float(np.mean(~wrong.any(axis=1))),
        "infill_accuracy": float(1 - wrong.sum() / inside.sum()),
    }


def _inside(shape: tuple[int, ...], starts: Int[np.ndarray, " S"], width: Width) -> Bool[np.ndarray, "N L"]:
    """Which tokens belong to the span of their window."""
    count, length = shape
    starts = np.asarray(starts)
    if starts.shape != (count,) or np.shape(width) not in ((), (count,)):
        raise ValueError(
            f"sample.infill: {count} windows need as many starts and widths, got {starts.shape}, {np.shape(width)}"
        )
    stops = starts + np.asarray(width)
    if np.any((starts < 1) | (stops <= starts) | (stops > length - 1)):
        raise ValueError(
            f"sample.infill: a span of a window of {length} tokens is empty or leaves no token on each side; pass a "
            "smaller --config.sample.infill"
        )
    positions = np.arange(length)[None, :]
    return (positions >= starts[:, None]) & (positions < stops[:, None])
