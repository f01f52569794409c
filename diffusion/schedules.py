"""Noise schedules: alpha(t) is the probability that a position is still clean at time t.

alpha falls from 1 at t = 0 to 0 at t = 1 (log-linear and geometric: to a small number). Everything else is derived:
the mask level 1 - alpha, the rate of the continuous-time bound by automatic differentiation, the inverse by bisection.
"""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalars = Float[Array, "*shape"]


class Schedule(Protocol):
    """Anything with a survival probability."""

    def alpha(self, time: Scalars) -> Scalars:
        """Probability that a position is still clean at `time`, in the array library and precision of `time`."""


@dataclass(frozen=True)
class LogLinear:
    """alpha(t) = 1 - (1 - epsilon) t, whose rate is exactly 1 / t (MDLM; arXiv 2406.07524)."""

    epsilon: float = 1e-3

    def alpha(self, time: Scalars) -> Scalars:
        return 1 - (1 - self.epsilon) * time


@dataclass(frozen=True)
class Linear:
    """alpha(t) = 1 - t."""

    def alpha(self, time: Scalars) -> Scalars:
        return 1 - time


@dataclass(frozen=True)
class Cosine:
    """alpha(t) = 1 - cos(pi (1 - t) / 2), slow where most positions are masked (MD4)."""

    def alpha(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return 1 - numpy.cos(numpy.pi / 2 * (1 - time))


@dataclass(frozen=True)
class Polynomial:
    """alpha(t) = (1 - t)^power (Prime, section 4: power 3 on images)."""

    power: float = 3.0

    def alpha(self, time: Scalars) -> Scalars:
        return (1 - time) ** self.power


@dataclass(frozen=True)
class Geometric:
    """alpha(t) = exp(-low^(1-t) high^t): the total noise grows geometrically (SEDD, MDLM ablation)."""

    low: float = 1e-3
    high: float = 20.0

    def alpha(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.exp(-(self.low ** (1 - time)) * self.high**time)


@dataclass(frozen=True)
class Loop:
    """A mask level that falls to `level`, waits there from t_on to t_off, and falls to 0 (G-Star, section 2.5).

    1 - alpha(t) is level t / t_off below t_off, level up to t_on, and level + (1 - level)(t - t_on)/(1 - t_on) above,
    clipped to [0, 1 - 1e-6]. It is for samplers: its rate is 0 on the plateau, where nothing is learned.
    """

    t_off: float = 0.05
    t_on: float = 0.55
    level: float = 0.1

    def alpha(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        before = self.level * time / self.t_off
        after = self.level + (1 - self.level) * (time - self.t_on) / (1 - self.t_on)
        masked = numpy.where(time < self.t_off, before, numpy.where(time < self.t_on, self.level, after))
        return 1 - numpy.clip(masked, 0, 1 - 1e-6)


def rate(schedule: Schedule, time: Scalars) -> Scalars:
    """Weight of the continuous-time bound, -alpha'(t) / (1 - alpha(t)) (arXiv 2406.07524)."""
    alpha, slope = jax.jvp(schedule.alpha, (time,), (jnp.ones_like(time),))
    return -slope / (1 - alpha)


def sigma(schedule: Schedule, time: Scalars) -> Scalars:
    """Total noise -log alpha(t), the number that a time-conditioned network is given."""
    return -jnp.log(jnp.maximum(schedule.alpha(time), 1e-6))


def inverse(schedule: Schedule, alpha: Scalars) -> Scalars:
    """The time t in [0, 1] with alpha(t) = `alpha`, by bisection to float32 resolution."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        too_clean = schedule.alpha(middle) > alpha
        return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

    low, high = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(alpha), jnp.ones_like(alpha)))
    return (low + high) / 2
