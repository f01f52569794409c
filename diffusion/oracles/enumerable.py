"""Enumerable languages: tables with the probability of each of K^L sequences."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.special import entr

from diffusion.categorical import EXCLUDED, target_log_probs
from diffusion.types import Denoise, Logits, Symbols, Times, Tokens


@dataclass(frozen=True, eq=False)
class Enumerable:
    """A distribution of sequences of `length` tokens 0 .. vocabulary - 1; the mask is `vocabulary`.

    `table[n]` is the probability of row n of `sequences`: the digits of n in base `vocabulary`, most significant first.

    Raises:
      ValueError: for a table that does not have vocabulary^length entries or is not a distribution.
    """

    table: Float[np.ndarray, " N"]
    vocabulary: int
    length: int

    def __post_init__(self):
        if np.shape(self.table) != (self.vocabulary**self.length,):
            raise ValueError(f"table: must have {self.vocabulary**self.length} entries, not {np.shape(self.table)}")
        if np.min(self.table) < 0 or abs(np.sum(self.table) - 1) > 1e-9:
            raise ValueError("table: must be probabilities that sum to 1")

    @cached_property
    def sequences(self) -> np.ndarray:
        """All N = K^L sequences, [N, L], in the order of the table."""
        return np.array(list(product(range(self.vocabulary), repeat=self.length)), np.int32)

    def index(self, tokens: Tokens) -> np.ndarray:
        """Compute the index of each sequence in the table."""
        return np.asarray(tokens) @ self.vocabulary ** np.arange(self.length)[::-1]

    def log_prob(self, tokens: Tokens) -> np.ndarray:
        """log p(x) of each sequence, in nats; -inf for sequences of probability 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.table)[self.index(tokens)]

    def entropy(self) -> float:
        """The entropy -sum_x p(x) log p(x), in nats per sequence."""
        return float(entr(self.table).sum())

    def denoise(self, noisy: Tokens, time: Times) -> Logits:
        """Compute log p(x^i | unmasked tokens) exactly, [B, L, K + 1], as a sum over the consistent sequences.

        Time is ignored. If no sequence is consistent with a state, the logits of its masked positions are uniform.
        """
        del time
        return posterior_logits(self.posterior(noisy, jnp.asarray(self.sequences), self.vocabulary), noisy)

    def posterior(self, noisy: Symbols, codes: Int[Array, "X N"], mask_id: int) -> Float[Array, "B L V"]:
        """Sum p(x) 1[x^i = k] over the sequences x whose code agrees with all unmasked symbols of a state."""
        agrees = jnp.all((noisy == mask_id)[:, None, :] | (noisy[:, None, :] == codes[None]), axis=-1)
        joint = jnp.where(agrees, jnp.asarray(self.table, jnp.float32)[None], 0)
        onehot = jax.nn.one_hot(self.sequences, self.vocabulary).reshape(len(codes), -1)
        # The oracle would be inexact with a product of reduced precision.
        sums = jnp.matmul(joint, onehot, precision=jax.lax.Precision.HIGHEST)
        return sums.reshape(len(noisy), self.length, self.vocabulary)

    def next_token(self, inputs: Tokens, time: Times) -> Logits:
        """Compute log p(x^i | x^{<i}) exactly, [B, L, K + 1], for inputs shifted right by one start symbol."""
        tokens = jnp.pad(inputs[:, 1:], ((0, 0), (0, 1)))
        positions = jnp.arange(self.length)
        rows = []
        for position in range(self.length):
            prefix = jnp.where((positions < position)[None], tokens, self.vocabulary)
            rows.append(self.denoise(prefix, time)[:, position])
        return jnp.stack(rows, axis=1)

    def sample(self, key: Key[Array, ""], size: int) -> Tokens:
        """Draw sequences from the table."""
        with np.errstate(divide="ignore"):
            logits = jnp.asarray(np.log(self.table), jnp.float32)
        return jnp.asarray(self.sequences)[jax.random.categorical(key, logits, shape=(size,), mode="high")]

    def total_variation(self, tokens: Tokens) -> float:
        """Half the L1 distance between the frequencies of sequences and the table."""
        counts = np.bincount(self.index(tokens), minlength=len(self.table))
        return float(0.5 * np.abs(counts / len(tokens) - self.table).sum())

    def total_variation_floor(self, size: int) -> float:
        """The expected total variation of `size` exact samples, sum_x sqrt(p (1 - p) / (2 pi size))."""
        return float(np.sum(np.sqrt(self.table * (1 - self.table) / (2 * np.pi * size))))

    def expected_bound(self, denoise: Denoise) -> np.ndarray:
        """Compute the continuous-time bound of every sequence, [N], in nats, exactly for a denoiser that ignores time.

        The bound is the sum of 1 / (|S| binom(L, |S|)) sum_{i in S} -log p(x^i | z_S) over all nonempty masked sets S;
        the weight is int_0^1 l^{|S| - 1} (1 - l)^{L - |S|} dl.
        """
        total = np.zeros(len(self.table))
        score: Callable = jax.jit(
            lambda noisy: target_log_probs(denoise(noisy, jnp.zeros(len(noisy))), self.sequences, self.vocabulary)
        )
        for hidden in product([False, True], repeat=self.length):
            size = sum(hidden)
            if size:
                noisy = np.where(hidden, self.vocabulary, self.sequences)
                nats = -np.asarray(score(noisy), np.float64)[:, list(hidden)].sum(axis=1)
                total += nats / (size * comb(self.length, size))
        return total


def posterior_logits(weights: Float[Array, "B L V"], noisy: Tokens) -> Logits:
    """Convert unnormalized posteriors to logits: one-hot at unmasked positions, and no mass on the mask V."""
    vocabulary = weights.shape[-1]
    visible = jnp.where(jax.nn.one_hot(noisy, vocabulary) > 0, 0.0, EXCLUDED)
    logits = jnp.where((noisy == vocabulary)[..., None], finite_logs(weights), visible)
    return jnp.pad(logits, ((0, 0), (0, 0), (0, 1)), constant_values=EXCLUDED)


def finite_logs(weights: Float[Array, "B L V"]) -> Logits:
    """Compute log weights; no mass where a weight is 0, and 0 for all tokens of a position where all of them are."""
    positive = weights > 0
    logs = jnp.where(positive, jnp.log(jnp.where(positive, weights, 1)), EXCLUDED)
    return jnp.where(jnp.any(positive, axis=-1, keepdims=True), logs, 0.0)


def random_language(seed: int, vocabulary: int, length: int, scale: float = 1.5) -> Enumerable:
    """Draw a language with correlated tokens: log-probabilities of sequences are independent normals, normalized."""
    logits = scale * np.random.default_rng(seed).normal(size=vocabulary**length)
    weights = np.exp(logits - logits.max())
    return Enumerable(weights / weights.sum(), vocabulary, length)
