"""A test of whether an estimator is a bound on -log p(x), in nats.

Bounds satisfy two conditions. (1) Cross-entropy: for data of the distribution p, the mean of a bound is at least the
entropy of p under every denoiser; an exact estimator equals it under the exact denoiser. (2) Kraft's inequality:
sum_x exp(-bound(x)) <= 1 for every denoiser, because bound(x) >= -log p_model(x) and p_model sums to at most 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from diffusion.likelihood.estimators import Estimate
from diffusion.oracles.enumerable import Enumerable
from diffusion.oracles.processes import Language, known_process, next_symbol
from diffusion.oracles.tables import random_denoiser
from diffusion.rng import draws, named
from diffusion.types import Denoise, MaskedProcess, Process, Tokens

# Number of independent repetitions, from which all standard errors are computed.
REPEATS = 32
# Number of standard errors by which a value may violate its limit; about ten checks are made.
TOLERANCE = 4.5
# Nats (and Kraft mass) allowed for float32 rounding.
ROUNDING = 1e-3


@dataclass(frozen=True)
class Check:
    """An estimated quantity, its standard error and its limit."""

    quantity: str
    denoiser: str
    value: float
    error: float
    limit: float
    at_most: bool

    @property
    def slack(self) -> float:
        """The distance from the limit, negative for a violation."""
        return self.limit - self.value if self.at_most else self.value - self.limit

    @property
    def passed(self) -> bool:
        """Whether the value respects its limit up to `TOLERANCE` standard errors; false for NaN."""
        return bool(self.slack >= -TOLERANCE * self.error - ROUNDING)


def estimate_nats(
    estimate: Estimate,
    denoise: Denoise,
    process: Process | MaskedProcess,
    tokens: Tokens,
    draws_each: int,
    key: Key[Array, ""],
) -> Float[np.ndarray, "R B"]:
    """Average the draws of each sequence, in nats, float64, in each of `REPEATS` independent repetitions."""
    run = repeated(estimate, process, tokens, draws_each)
    return np.asarray(jax.jit(lambda key: run(denoise, key))(key), np.float64)


def repeated(estimate: Estimate, process: Process | MaskedProcess, tokens: Tokens, draws_each: int) -> Callable:
    """Return the traceable function (denoise, key) -> nats [R, B] of `estimate_nats`."""
    size = len(tokens)
    inner = -(-draws_each // REPEATS)
    batch = jnp.tile(jnp.asarray(tokens), (inner, 1))
    weights = jnp.ones(batch.shape)

    def run(denoise: Denoise, key: Key[Array, ""]) -> Float[Array, "R B"]:
        def once(step):
            nats = estimate(denoise, process, batch, weights, draws(key, "check", step, len(batch)))
            if jnp.shape(nats) != (len(batch),):
                raise ValueError(f"must return one number per sequence, shape {(len(batch),)}, not {jnp.shape(nats)}")
            return nats.reshape(inner, size).mean(axis=0)

        return jax.lax.map(once, jnp.arange(REPEATS))

    return run


def kraft_sum(nats: Float[np.ndarray, "R N"]) -> tuple[float, float]:
    """Compute sum_x exp(-bound(x)) over all sequences, and its standard error.

    Noise of the estimates increases the sum, as exp is convex; the sum is corrected for this to second order.
    """
    repeats = len(nats)
    mean = nats.mean(axis=0)
    probs = np.exp(-mean)
    variance = nats.var(axis=0, ddof=1) / repeats
    change = ((nats - mean) * probs).sum(axis=1)
    return float(np.sum(probs * (1 - variance / 2))), float(change.std(ddof=1) / np.sqrt(repeats))


def estimate_cross_entropy(
    nats: Float[np.ndarray, "R N"], surprise: Float[np.ndarray, " N"], probs: Float[np.ndarray, " N"], entropy: float
) -> tuple[float, float]:
    """Compute the mean of the estimate over the data, in nats per sequence, and its standard error.

    It is the entropy plus the mean of nats - (-log p(x)), which has the same expectation without the variance of
    -log p(x).
    """
    excess = nats - surprise
    repeats = excess @ probs
    return float(entropy + repeats.mean()), float(repeats.std(ddof=1) / np.sqrt(len(repeats)))


def check_estimator(
    estimate: Estimate,
    language: Language,
    process: Process | MaskedProcess,
    *,
    causal: bool = False,
    draws_each: int = 4096,
    seed: int = 0,
    tables: int = 5,
) -> list[Check]:
    """Estimate the cross-entropy and, for an enumerable language, the Kraft sum under exact and wrong denoisers.

    The first check is the cross-entropy under the exact denoiser. Every sequence of an enumerable language gets
    `draws_each` draws; for other languages `draws_each` / 32 sampled sequences get 32 draws each.

    Raises:
      ValueError: for a process of sub-tokens on a language that is not enumerable.
    """
    key = jax.random.key(seed)
    known = known_process(process)
    if causal:
        assert isinstance(process, MaskedProcess)
        exact, classes = next_symbol(language, process), process.mask_id
    else:
        exact, classes = known.exact(language, process), language.vocabulary
    if isinstance(language, Enumerable):
        tokens, probs, each = language.sequences, language.table, draws_each
    else:
        each = REPEATS
        tokens = language.sample(named(key, "data"), max(2, draws_each // REPEATS))
        probs = np.full(len(tokens), 1 / len(tokens))
    surprise = -np.where(probs > 0, language.log_prob(tokens), 0)

    run = repeated(estimate, process, tokens, each)
    draw_key = named(key, "draws")

    @jax.jit
    def wrong(table_key: Key[Array, ""], scale: Float[Array, ""], key: Key[Array, ""]) -> Float[Array, "R B"]:
        table = random_denoiser(table_key, classes, scale, causal=causal, subtokens=process.subtokens)
        return run(known.of_states(table, process), key)

    results = {"exact": jax.jit(lambda key: run(exact, key))(draw_key)}
    # One compilation for all wrong denoisers: at scale 0 random logits are uniform.
    results["uniform"] = wrong(named(key, "tables"), jnp.float32(0.0), draw_key)
    for index in range(tables):
        table_key = jax.random.fold_in(named(key, "tables"), index)
        results[f"random {index + 1}"] = wrong(table_key, jnp.float32(0.7), draw_key)

    checks = []
    for name, result in results.items():
        nats = np.asarray(result, np.float64)
        value, error = estimate_cross_entropy(nats, surprise, probs, language.entropy())
        checks.append(Check("cross-entropy", name, value, error, language.entropy(), at_most=False))
        if isinstance(language, Enumerable):
            checks.append(Check("Kraft sum", name, *kraft_sum(nats), limit=1.0, at_most=True))
    return checks
