"""Model-aware noise scaling (MANS; FastDiSS, arXiv 2604.05551): confident tokens get more noise.

The paper scales the noise per token, and moves tokens of which the model is confident to a later time. Its formulas
were not available to us: the maps are inferred. A map interpolated between anchors, and a confidence by the distance of
embeddings, are readings that are not offered. Two controls measure the effect of the confidence itself.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.loss import token_log_probs
from diffusion.rng import fold, uniform
from diffusion.schedules.gaussian import GaussianSchedule
from diffusion.types import Keys, Params, TokenMask, Tokens

# "shift": t + strength c (1 - t). "scale": sigma / alpha times 1 + (largest - 1) c. "random" and "shuffled" are
# controls: the shift with c ~ U(0, 1), and with the confidence of a random token of the same sentence, which has the
# same distribution.
MAPS = ("off", "shift", "scale", "random", "shuffled")
TokenTimes = Float[Array, "B L"]
BISECTION_STEPS = 30


@dataclass(frozen=True)
class NoiseScaling:
    """Times per token t_theta >= t, from the confidence of the model's estimate at t (FastDiSS, arXiv 2604.05551).

    With `aware` the network reads t_theta, else t. A fraction `off_probability` of the examples keeps one time for all
    tokens, as in inference. Strength 0 or largest 1 do not change times, bit for bit.

    Raises:
      ValueError: for unknown names, and numbers out of range.
    """

    map: str = "off"
    strength: float = 0.5
    largest: float = 3.0
    aware: bool = True
    off_probability: float = 0.0

    def __post_init__(self):
        if self.map not in MAPS:
            raise ValueError(f"mans.map: unknown {self.map!r}; known: {', '.join(MAPS)}")
        for field, value in (("strength", self.strength), ("off_probability", self.off_probability)):
            if not 0 <= value <= 1:
                raise ValueError(f"mans.{field}: must lie in [0, 1], not {value}")
        if self.largest < 1:
            raise ValueError(f"mans.largest: the scale of noise must be at least 1, not {self.largest}")

    def times(
        self,
        keys: Keys,
        schedule: GaussianSchedule,
        time: TokenTimes,
        confidence: Float[Array, "B L"],
        mask: TokenMask,
    ) -> TokenTimes:
        """Compute t_theta from t and the confidence; without a gradient."""
        if self.map == "off":
            return time
        if self.map == "random":
            confidence = uniform(fold(keys, "random"), time.shape[1:])
        if self.map == "shuffled":
            confidence = shuffle_within(fold(keys, "shuffled"), confidence, mask)
        if self.map == "scale":
            token_time = rescale_time(schedule, time, 1 + (self.largest - 1) * confidence)
        else:
            token_time = time + self.strength * confidence * (1 - time)
        off = uniform(fold(keys, "homogeneous"), (1,)) < self.off_probability
        return jax.lax.stop_gradient(jnp.where(off, time, token_time))


UNSCALED = NoiseScaling()


def confidence(
    codec: EmbeddingCodec, params: Params, estimate: Float[Array, "B L d"], tokens: Tokens
) -> Float[Array, "B L"]:
    """Compute the confidence of every token, p(y_i) under the logits of the estimate."""
    return jnp.exp(token_log_probs(codec.readout(params, estimate), tokens, codec.vocabulary))


def rescale_time(schedule: GaussianSchedule, time: TokenTimes, factor: Float[Array, "B L"]) -> TokenTimes:
    """Find the time at which sigma / alpha is `factor` times its value at `time`, by bisection.

    Where the factor is 1 this is `time` exactly. For sigma = t it is s t / sqrt(1 - t^2 + s^2 t^2) with s the factor.
    """
    signal, variance = schedule.signal(time), factor**2 * schedule.variance(time)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        # The ratios are compared by cross-multiplication, as the signal is 0 at time 1.
        below = schedule.variance(middle) * signal < variance * schedule.signal(middle)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTION_STEPS, halve, (time, jnp.ones_like(time)))
    return jnp.where(factor == 1, time, (low + high) / 2)


def shuffle_within(keys: Keys, values: Float[Array, "B L"], mask: TokenMask) -> Float[Array, "B L"]:
    """Permute the values of each example's tokens at random; padding must be last."""
    ranks = uniform(keys, values.shape[1:])
    order = jnp.argsort(jnp.where(mask, ranks, 2.0), axis=-1)
    return jnp.take_along_axis(values, order, axis=-1)
