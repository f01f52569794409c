"""Small languages as denoisers, their marginals, and the language of independent positions that one step draws."""

from functools import reduce

import jax.numpy as jnp
import numpy as np

from diffusion.oracles.enumerable import Enumerable


def denoiser_of(denoise):
    """Return `denoise(noisy, time)` as a denoiser that has no parameters."""
    return lambda params, noisy, time, cond=None, memory=None, *, keys=None: denoise(noisy, time)


def constant(logits, digits=2):
    """Return a context-free network, with the same logits in every state of tokens of `digits` sub-tokens."""
    logits = jnp.asarray(logits, jnp.float32)[None, None]
    return lambda noisy, time: jnp.broadcast_to(logits, (len(noisy), noisy.shape[1] // digits, logits.shape[2]))


def marginals(language):
    """Return p(x^i) of every position, [L, K]."""
    axes = range(language.length)
    table = language.table.reshape((language.vocabulary,) * language.length)
    return [table.sum(axis=tuple(other for other in axes if other != axis)) for axis in axes]


def product_of_marginals(language, power=1.0):
    """Return the language of independent positions x^i from p(x^i)^power."""
    shares = [marginal**power / np.sum(marginal**power) for marginal in marginals(language)]
    table = reduce(np.multiply.outer, shares).ravel()
    return Enumerable(table / table.sum(), language.vocabulary, language.length)


def distance(one, other):
    """Return the total variation between two languages."""
    return 0.5 * np.abs(one.table - other.table).sum()


def lookup(symbols, positions, shape, scale=1.0, timed=True, seed=0):
    """Return a denoiser with arbitrary logits of this shape in every state: an array, which compiles fast.

    A state has `positions` of this number of symbols. If `timed`, logits depend on time.
    """
    table = np.random.default_rng(seed).normal(0, scale, (symbols**positions, 2, *shape)).astype(np.float32)

    def denoise(noisy, time):
        rows = jnp.asarray(table)[noisy @ jnp.asarray(symbols ** np.arange(positions))]
        return rows[:, 0] + jnp.sin(2 * jnp.pi * time)[:, None, None] * rows[:, 1] if timed else rows[:, 0]

    return denoise
