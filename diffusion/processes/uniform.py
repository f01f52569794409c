"""Uniform-state diffusion (UDLM): tokens are replaced by uniformly random ones instead of masks."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import exclude
from diffusion.rng import fold, integers, uniform
from diffusion.types import Keys, Logits, Schedule, Times, Tokens

# The smallest level whose integrand is computed; draws of float32 on [0, 1) are 0 or larger.
LOWEST = 1e-12
# The smallest probability, up to a factor, that has a logarithm.
TINY = 1e-37
# Below this x, x - log(1 + x) is computed by its series, whose first missing term is then 3e-7 of the sum.
SMALL = 0.03


@dataclass(frozen=True)
class UniformDiffusion:
    """Uniform-state diffusion, q(z_t | x) = Cat(alpha(t) x + (1 - alpha(t)) / K) at each position (arXiv 2412.10193).

    A level is 1 - alpha(t), the probability that a position has been redrawn. The network's p(. | z_t) enters
    through y_j = K alpha p_j + 1 - alpha, which is K times the law of the noisy token under p. The token of a position
    is evidence about itself through y alone, hence the best p is the leave-one-out posterior p(x^i | z_t^{-i}), not
    p(x^i | z_t). Classes `vocabulary` and above are never predicted. No state has a mask.
    """

    vocabulary: int
    schedule: Schedule
    subtokens = 1  # positions per token in the noisy state

    def prior(self, keys: Keys, length: int) -> Tokens:
        """Draw the state at t = 1: uniform tokens."""
        return integers(fold(keys, "prior"), (length,), 0, self.vocabulary)

    def corrupt(self, keys: Keys, clean: Tokens, time: Times) -> Tokens:
        """Draw z_t given the clean tokens, with one key and one time per example."""
        return self.noised(keys, clean, self.schedule.masked(time))

    def noised(self, keys: Keys, clean: Tokens, level: Float[Array, " B"]) -> Tokens:
        """Replace each token, with probability `level`, by one of all K tokens, which may be the same one."""
        replaced = uniform(fold(keys, "corrupt"), clean.shape[1:]) < level[:, None]
        return jnp.where(replaced, integers(fold(keys, "noise"), clean.shape[1:], 0, self.vocabulary), clean)

    def posterior(
        self, logits: Logits, noisy: Tokens, level: Float[Array, " B"], next_level: Float[Array, " B"]
    ) -> Float[Array, "B L C"]:
        """Compute log p(z_s | z_t) of every position, in nats, for the reverse step from `level` to `next_level`.

        With a = alpha_t / alpha_s it is P(z_s = j) ~ (K a [j = z_t] + 1 - a) (K alpha_s p_j + 1 - alpha_s), Bayes' rule
        for a clean token with the law p (arXiv 2412.10193; arXiv 2107.03006, D3PM). At s = 0 it is p(x | z_t).
        """
        alpha, next_alpha = 1 - level[:, None, None], jnp.maximum(1 - next_level, LOWEST)[:, None, None]
        moved = (level - next_level)[:, None, None] / next_alpha
        kept = self.vocabulary * alpha / next_alpha * self.one_hot(noisy) + moved
        clean = self.vocabulary * next_alpha * self.probs(logits) + next_level[:, None, None]
        return jax.nn.log_softmax(jnp.log(jnp.maximum(kept, TINY)) + jnp.log(jnp.maximum(clean, TINY)), axis=-1)

    def bound_integrand(
        self, logits: Logits, noisy: Tokens, clean: Tokens, level: Float[Array, " B"]
    ) -> Float[Array, "B L"]:
        """Compute the integrand of the bound over the level, in nats per position.

        With r_j = y_j(x) / y_z(x) for the clean token, and r'_j the same for p, it is

            1 / (K alpha) sum_j [r_j log(r_j / r'_j) - r_j + r'_j],

        whose integral over the levels from 0 to 1 - alpha(1), plus `prior_nats`, is the NELBO; over time the factor
        -alpha'(t) joins (arXiv 2412.10193, the continuous-time NELBO). The bracket is r (g - log(1 + g)) with
        g = r' / r - 1, and g = alpha c, where c is computed from differences of probabilities: nothing cancels where
        alpha is small (r and r' are then nearly 1), nor where 1 - alpha is (r is then nearly 0 or infinite).
        """
        level = jnp.maximum(level, LOWEST)[:, None, None]
        alpha = 1 - level
        signal = self.vocabulary * alpha
        probs, true = self.probs(logits), self.one_hot(clean)
        seen = jnp.take_along_axis(probs, noisy[..., None], axis=-1)
        same = (noisy == clean)[..., None].astype(jnp.float32)
        model, model_seen = signal * probs + level, signal * seen + level
        exact, exact_seen = signal * true + level, signal * same + level
        difference = signal * (probs * same - true * seen) + level * (probs - seen + same - true)
        slope = self.vocabulary * difference / (model_seen * exact)
        gap = alpha * slope
        near, is_small = jnp.clip(gap, -SMALL, SMALL), jnp.abs(gap) < SMALL
        # The slope is 0 where the series does not hold, so that no gradient overflows.
        small_slope = jnp.where(is_small, slope, 0.0)
        series = alpha * small_slope**2 * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5))))
        log_ratio = jnp.log(model) + jnp.log(exact_seen) - jnp.log(exact) - jnp.log(model_seen)
        log_ratio = jnp.where(gap > -0.5, jnp.log1p(jnp.maximum(gap, -0.5)), log_ratio)
        direct = (gap - log_ratio) / jnp.maximum(alpha, TINY)
        terms = exact / exact_seen * jnp.where(is_small, series, direct)
        return jnp.sum(terms, axis=-1) / self.vocabulary

    def prior_nats(self) -> float:
        """The prior term KL(q(z_1 | x) || uniform) of one position, in nats; 0 for alpha(1) = 0."""
        level = float(self.schedule.masked(np.ones(())))
        seen, other = self.vocabulary * (1 - level) + level, (self.vocabulary - 1) * level
        return float((seen * np.log(seen) + other * np.log(max(level, LOWEST))) / self.vocabulary)

    def probs(self, logits: Logits) -> Float[Array, "B L C"]:
        """The network's probabilities of the K tokens, float32."""
        return jax.nn.softmax(exclude(logits, self.vocabulary)[..., : self.vocabulary], axis=-1)

    def one_hot(self, tokens: Tokens) -> Float[Array, "B L C"]:
        """Indicators of tokens."""
        return jax.nn.one_hot(tokens, self.vocabulary, dtype=jnp.float32)
