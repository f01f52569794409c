"""Checks that many tests share: errors of one line, and statistics within their errors."""

from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

import jax
import numpy as np
import pytest

# Options of programs that are compiled as outside of tests. Those that draw many samples take less time with them, and
# values are equal bit for bit in two places of one program: XLA computes a value that several fusions read once, but
# without its emitters once in each of them.
OPTIMIZED = {"xla_backend_optimization_level": 3}
OPTIMIZED |= {"xla_cpu_use_fusion_emitters": True} if version("jaxlib").startswith("0.10.") else {}
optimized = partial(jax.jit, compiler_options=OPTIMIZED)

# A read that fails leaves tasks behind, of which Python complains when they are collected.
LEFT_BY_ORBAX = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning"
)


@contextmanager
def refused(message, error=ValueError):
    """Expect an error of one line that matches a regular expression."""
    with pytest.raises(error, match=message) as caught:
        yield
    assert "\n" not in str(caught.value)


def within(measured, expected, count, tolerance=4):
    """Return whether the mean of `count` trials is within `tolerance` standard errors of its expectation."""
    return abs(np.mean(measured) - expected) <= tolerance * np.sqrt(expected * (1 - expected) / count)


def deviation(draws, expected):
    """Return the largest distance of the means of draws [R, N] from their expectations [N], in standard errors."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    return np.max(np.abs(draws.mean(axis=0) - expected) / np.maximum(error, 1e-6))


def chi_square(tokens, probs):
    """Return the chi-square statistic of tokens from these probabilities, in standard deviations above its mean."""
    expected = probs * np.size(tokens)
    statistic = ((np.bincount(np.ravel(tokens), minlength=len(probs)) - expected) ** 2 / expected).sum()
    return (statistic - (len(probs) - 1)) / (2 * (len(probs) - 1)) ** 0.5
