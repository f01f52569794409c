"""Markov chains of any length, with exact posteriors given any set of unmasked tokens and a known entropy."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.special import entr

from diffusion.oracles.enumerable import Enumerable, posterior_logits
from diffusion.types import Logits, Times, Tokens


@dataclass(frozen=True, eq=False)
class Markov:
    """The Markov chain p(x) = initial[x^1] prod_i transition[x^{i-1}, x^i]; the mask is K.

    Raises:
      ValueError: if `initial` or a row of `transition` is not a distribution, or if their sizes differ.
    """

    initial: Float[np.ndarray, " K"]
    transition: Float[np.ndarray, "K K"]
    length: int

    def __post_init__(self):
        if np.shape(self.transition) != (len(self.initial),) * 2 or self.length < 1:
            raise ValueError(f"transition: must be {len(self.initial)} x {len(self.initial)}, and length at least 1")
        for row in (self.initial, *self.transition):
            if np.min(row) < 0 or abs(np.sum(row) - 1) > 1e-9:
                raise ValueError("initial and every row of transition must be probabilities that sum to 1")

    @property
    def vocabulary(self) -> int:
        """Number K of tokens."""
        return len(self.initial)

    @cached_property
    def powers(self) -> np.ndarray:
        """transition^d for d = 0 .. L, [L + 1, K, K], in float64."""
        factors = [self.transition] * self.length
        return np.stack(list(accumulate(factors, np.matmul, initial=np.eye(self.vocabulary))))

    @cached_property
    def marginals(self) -> np.ndarray:
        """p(x^i) of every position, [L, K]."""
        return self.initial @ self.powers[: self.length]

    def log_prob(self, tokens: Tokens) -> np.ndarray:
        """log p(x) of each sequence, in nats."""
        tokens = np.asarray(tokens)
        with np.errstate(divide="ignore"):
            first, steps = np.log(self.initial), np.log(self.transition)
        return first[tokens[:, 0]] + steps[tokens[:, :-1], tokens[:, 1:]].sum(axis=1)

    def entropy(self) -> float:
        """The entropy H(x^1) + sum_i H(x^{i+1} | x^i), in nats per sequence."""
        return float(entr(self.initial).sum() + np.sum(self.marginals[:-1] @ entr(self.transition).sum(axis=1)))

    def denoise(self, noisy: Tokens, time: Times) -> Logits:
        """Compute log p(x^i | unmasked tokens) exactly, [B, L, K + 1]; time is ignored.

        A position depends only on the nearest unmasked tokens a (d to the left) and b (e to the right):
        p(x^i = k) ~ (P^d)[a, k] (P^e)[k, b]. The powers of the transition matrix P, computed once in float64, replace
        forward and backward passes along the sequence.
        """
        del time
        size, length = noisy.shape
        visible = noisy < self.vocabulary
        positions = jnp.broadcast_to(jnp.arange(length), noisy.shape)
        left = jax.lax.cummax(jnp.where(visible, positions, -1), axis=1)
        right = jax.lax.cummin(jnp.where(visible, positions, length), axis=1, reverse=True)
        powers = jnp.asarray(self.powers, jnp.float32)
        before = jnp.take_along_axis(noisy, jnp.maximum(left, 0), axis=1)
        after = jnp.take_along_axis(noisy, jnp.minimum(right, length - 1), axis=1)
        # Values at missing neighbors are arbitrary; `where` discards them below.
        last_token = self.vocabulary - 1
        forward = powers[positions - left, jnp.minimum(before, last_token)]
        start = jnp.broadcast_to(jnp.asarray(self.marginals, jnp.float32), (size, length, self.vocabulary))
        forward = jnp.where((left >= 0)[..., None], forward, start)
        backward = jnp.swapaxes(powers, 1, 2)[right - positions, jnp.minimum(after, last_token)]
        backward = jnp.where((right < length)[..., None], backward, 1.0)
        return posterior_logits(forward * backward, noisy)

    def next_token(self, inputs: Tokens, time: Times) -> Logits:
        """Compute log p(x^i | x^{i-1}) exactly, [B, L, K + 1], for inputs shifted right by one start symbol."""
        del time
        rows = jnp.asarray(self.transition, jnp.float32)[inputs[:, 1:]]
        first = jnp.broadcast_to(jnp.asarray(self.initial, jnp.float32), (len(inputs), 1, self.vocabulary))
        weights = jnp.concatenate([first, rows], axis=1)
        return posterior_logits(weights, jnp.full(inputs.shape, self.vocabulary))

    def sample(self, key: Key[Array, ""], size: int) -> Tokens:
        """Draw sequences token by token."""
        with np.errstate(divide="ignore"):
            first = jnp.asarray(np.log(self.initial), jnp.float32)
            steps = jnp.asarray(np.log(self.transition), jnp.float32)

        def advance(logits, step_key):
            token = jax.random.categorical(step_key, logits, axis=-1, mode="high")
            return steps[token], token

        start = jnp.broadcast_to(first, (size, self.vocabulary))
        _, tokens = jax.lax.scan(advance, start, jax.random.split(key, self.length))
        return tokens.T.astype(jnp.int32)

    def ngrams(self, order: int) -> np.ndarray:
        """The distribution of the n-gram at a uniformly random position, [K, ..., K], for n = `order`."""
        probs = self.marginals[: self.length - order + 1].mean(axis=0)
        for _ in range(order - 1):
            probs = probs[..., None] * self.transition
        return probs

    def ngram_total_variation(self, tokens: Tokens, order: int) -> float:
        """Half the L1 distance between the n-gram frequencies of sequences, pooled over positions, and `ngrams`."""
        tokens = np.asarray(tokens)
        columns = tuple(tokens[:, start : self.length - order + 1 + start].ravel() for start in range(order))
        counts = np.zeros((self.vocabulary,) * order)
        np.add.at(counts, columns, 1)
        return float(0.5 * np.abs(counts / counts.sum() - self.ngrams(order)).sum())

    def enumerate(self) -> Enumerable:
        """Convert to an enumerable language; for short chains."""
        sequences = np.array(list(product(range(self.vocabulary), repeat=self.length)))
        return Enumerable(np.exp(self.log_prob(sequences)), self.vocabulary, self.length)


def random_chain(seed: int, vocabulary: int, length: int, scale: float = 1.5) -> Markov:
    """Draw a stationary chain whose transition logits are independent normals."""
    weights = np.exp(scale * np.random.default_rng(seed).normal(size=(vocabulary, vocabulary)))
    transition = weights / weights.sum(axis=1, keepdims=True)
    stationary = np.linalg.matrix_power(transition, 2048)[0]
    return Markov(stationary / stationary.sum(), transition, length)
