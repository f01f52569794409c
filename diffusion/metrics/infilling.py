"""Infilling: hides a span of held-out windows, and scores the tokens that a sampler generates for it."""

import numpy as np
from jaxtyping import Bool, Int, Integer


def spans(count: int, length: int, width: int, seed: int) -> Int[np.ndarray, " N"]:
    """Start of the hidden span of `width` tokens in each of `count` windows of `length` tokens.

    Uniform over the starts that leave at least one token on both sides; a function of (seed, index of the window).

    Raises:
      ValueError: when the width leaves no context, or no token to fill in.
    """
    if not 1 <= width <= length - 2:
        raise ValueError(
            f"sample.infill: a span of {width} tokens in windows of {length} leaves nothing to fill in, or no token "
            f"on each side; pass --config.sample.infill=1 to {length - 2}"
        )
    draws = [np.random.default_rng([seed, index]).integers(1, length - width) for index in range(count)]
    return np.array(draws, np.int64)


def masked(
    tokens: Integer[np.ndarray, "N L"], starts: Int[np.ndarray, " S"], width: int, mask_id: int
) -> Integer[np.ndarray, "N L"]:
    """Windows with their span of `width` tokens replaced by masks.

    Raises:
      ValueError: when a span leaves no context on one side, or the numbers of windows differ.
    """
    tokens = np.asarray(tokens)
    dtype = np.result_type(tokens, np.min_scalar_type(mask_id))  # the mask may exceed the dtype of the tokens
    return np.where(_inside(tokens.shape, starts, width), np.array(mask_id, dtype), tokens)


def score(
    tokens: Integer[np.ndarray, "N L"], truth: Integer[np.ndarray, "M K"], starts: Int[np.ndarray, " S"], width: int
) -> dict[str, float]:
    """Agreement of infilled spans with the windows from which they were cut.

    `infill_exact`: share of windows whose whole span is reproduced; `infill_accuracy`: share of tokens over all spans
    that are reproduced. A span can have other good infillings: compare methods at equal width.

    Raises:
      ValueError: as `masked` does, or when there is no window.
    """
    tokens, truth = np.asarray(tokens), np.asarray(truth)
    if tokens.shape != truth.shape:
        raise ValueError(f"sample.infill: samples {tokens.shape} and held-out windows {truth.shape} differ in shape")
    inside = _inside(tokens.shape, starts, width)
    if not len(tokens):
        raise ValueError("sample.infill: no window to score; pass a larger --config.sample.count")
    errors = (tokens != truth) & inside
    return {
        "infill_exact": float(np.mean(~errors.any(axis=1))),
        "infill_accuracy": float(1 - errors.sum() / inside.sum()),
    }


def _inside(shape: tuple[int, ...], starts: Int[np.ndarray, " S"], width: int) -> Bool[np.ndarray, "N L"]:
    """Whether each token belongs to the span of its window."""
    count, length = shape
    starts = np.asarray(starts)
    if starts.shape != (count,):
        raise ValueError(f"sample.infill: {count} windows need as many starts, not {starts.shape}")
    stops = starts + width
    if np.any((starts < 1) | (stops <= starts) | (stops > length - 1)):
        raise ValueError(
            f"sample.infill: a span of a window of {length} tokens is empty or leaves no token on each side; pass a "
            "smaller --config.sample.infill"
        )
    positions = np.arange(length)[None, :]
    return (positions >= starts[:, None]) & (positions < stops[:, None])
