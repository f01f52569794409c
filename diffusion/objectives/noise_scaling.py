"""Model-aware noise scaling (FastDiSS, arXiv 2604.05551): tokens that the model is sure of get more noise.

Known are the idea, that it acts on single tokens, and that sure tokens are moved to a later time. Formulas were not to
be had: confidence and maps here are inferred. Two controls show what confidence itself is worth.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.codecs.embedding import Embedding
from diffusion.objectives.perturbation import uniforms
from diffusion.rng import fold, uniform
from diffusion.schedules.gaussian import GaussianSchedule
from diffusion.types import Keys, Params, TokenMask, Tokens

MEASURES = ("likelihood", "distance")
# "shift": t + strength c (1 - t). "scale": noise over signal times 1 + (largest - 1) c. "table": times what `anchors`
# say of c, linear between them. Controls, no methods: "random", the shift with u ~ U(0, 1) for c; "shuffled", the shift
# with the confidence of another token of the sentence, which keeps its distribution, mean included, and not its sense.
MAPS = ("off", "shift", "scale", "table", "random", "shuffled")
TokenTimes = Float[Array, "B L"]
HALVINGS = 30


@dataclass(frozen=True)
class NoiseScaling:
    """Per-token times t_theta >= t from the model's own estimate at t; where `aware` the network is told them.

    A share `off_probability` of the examples keeps one time for all of its tokens, as inference has it. Strength 0 and
    largest 1 leave the times as they are, bit for bit.
    Raises:
      ValueError: for unknown names, and numbers out of range.
    """

    map: str = "off"
    measure: str = "likelihood"
    strength: float = 0.5
    largest: float = 3.0
    anchors: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.5, 1.5), (1.0, 3.0))
    temperature: float = 1.0
    aware: bool = True
    off_probability: float = 0.0

    def __post_init__(self):
        for field, value, known in (("map", self.map, MAPS), ("measure", self.measure, MEASURES)):
            if value not in known:
                raise ValueError(f"mans.{field}: unknown {value!r}; known: {', '.join(known)}")
        for field, value in (("strength", self.strength), ("off_probability", self.off_probability)):
            if not 0 <= value <= 1:
                raise ValueError(f"mans.{field}: must lie in [0, 1], not {value}")
        if self.largest < 1 or min(scale for _, scale in self.anchors) < 1:
            raise ValueError(f"mans.largest: scales of noise must be at least 1, not {self.largest}, {self.anchors}")
        if self.temperature <= 0:
            raise ValueError(f"mans.temperature: must be positive, not {self.temperature}")

    def confidence(
        self, codec: Embedding, params: Params, estimate: Float[Array, "B L d"], tokens: Tokens
    ) -> Float[Array, "B L"]:
        """c in [0, 1]: p(y_i) under the estimate's logits, or exp(-||estimate - e(y_i)||^2 / (d temperature m)).

        m is the mean square of an embedding's coordinate, 1 where embeddings are normalized.
        """
        if self.measure == "likelihood":
            return jnp.exp(target_log_probs(codec.logits(params, estimate), tokens, codec.vocabulary))
        square = jnp.mean((estimate - codec.encode(params, tokens)) ** 2, axis=-1)
        return jnp.exp(-square / (self.temperature * codec.mean_square(params)))

    def times(
        self,
        keys: Keys,
        schedule: GaussianSchedule,
        time: TokenTimes,
        confidence: Float[Array, "B L"],
        mask: TokenMask,
    ) -> TokenTimes:
        """t_theta."""
        if self.map == "off":
            return time
        if self.map == "random":
            confidence = uniform(fold(keys, "random"), time.shape[1:])
        if self.map == "shuffled":
            confidence = shuffled(fold(keys, "shuffled"), confidence, mask)
        if self.map == "scale":
            moved = rescaled_time(schedule, time, 1 + (self.largest - 1) * confidence)
        elif self.map == "table":
            at, scales = (jnp.asarray(column, jnp.float32) for column in zip(*self.anchors, strict=True))
            moved = rescaled_time(schedule, time, jnp.interp(confidence, at, scales))
        else:
            moved = shifted(time, confidence, self.strength)
        off = uniforms(fold(keys, "homogeneous")) < self.off_probability
        return jax.lax.stop_gradient(jnp.where(off, time, moved))


UNSCALED = NoiseScaling()


def shifted(time: TokenTimes, confidence: Float[Array, "B L"], strength: float) -> TokenTimes:
    """t + strength c (1 - t): from t for c = 0 to t + strength (1 - t) for c = 1."""
    return time + strength * confidence * (1 - time)


def rescaled_time(schedule: GaussianSchedule, time: TokenTimes, factor: Float[Array, "B L"]) -> TokenTimes:
    """The time at which sigma / alpha is `factor` times what it is at `time`, by bisection; `time` where that is 1.

    Its alpha^2 is `gaussian_schedules.rescaled`. For sigma = t it is s t / sqrt(1 - t^2 + s^2 t^2).
    """
    signal, variance = schedule.signal(time), factor**2 * schedule.variance(time)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        # Noise over signal, cross-multiplied: there is no signal at time 1.
        below = schedule.variance(middle) * signal < variance * schedule.signal(middle)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (time, jnp.ones_like(time)))
    return jnp.where(factor == 1, time, (low + high) / 2)


def shuffled(keys: Keys, values: Float[Array, "B L"], mask: TokenMask) -> Float[Array, "B L"]:
    """The values of the real positions, which come first, in a random order."""
    ranks = uniform(keys, values.shape[1:])
    order = jnp.argsort(jnp.where(mask, ranks, 2.0), axis=-1)
    return jnp.take_along_axis(values, order, axis=-1)
