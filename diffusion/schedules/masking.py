"""Schedules of masked diffusion: alpha(t) is the probability that a position is still clean at time t.

alpha falls from 1 at t = 0 to 0 at t = 1 (log-linear and geometric: to a small number). A schedule states alpha(t) and
its mask level 1 - alpha(t), each without cancellation where it is small. The rate of the continuous-time bound follows
by automatic differentiation, the inverse by bisection.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.types import Scalars, Schedule

LAST = 1 - 2.0**-24  # the largest float32 below 1


@dataclass(frozen=True)
class LogLinear(Schedule):
    """alpha(t) = 1 - (1 - epsilon) t, whose rate is exactly 1 / t (MDLM, arXiv 2406.07524)."""

    epsilon: float = 1e-3

    def masked(self, time: Scalars) -> Scalars:
        return (1 - self.epsilon) * time

    def alpha(self, time: Scalars) -> Scalars:
        return (1 - time) + self.epsilon * time


@dataclass(frozen=True)
class Linear(Schedule):
    """alpha(t) = 1 - t."""

    def masked(self, time: Scalars) -> Scalars:
        return time

    def alpha(self, time: Scalars) -> Scalars:
        return 1 - time


@dataclass(frozen=True)
class Cosine(Schedule):
    """alpha(t) = 1 - cos(pi (1 - t) / 2), slow where most positions are masked (MD4, arXiv 2406.04329)."""

    def masked(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.sin(numpy.pi / 2 * time)

    def alpha(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return 2 * numpy.sin(numpy.pi / 4 * (1 - time)) ** 2


@dataclass(frozen=True)
class Polynomial(Schedule):
    """alpha(t) = (1 - t)^power (MDM-Prime uses power 3 on images)."""

    power: float = 3.0

    def masked(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        # The logarithm of 0 is avoided: at t = 1 the level is 1 to the last digit, and the slope finite.
        return -numpy.expm1(self.power * numpy.log1p(-numpy.minimum(time, LAST)))

    def alpha(self, time: Scalars) -> Scalars:
        return (1 - time) ** self.power


@dataclass(frozen=True)
class Geometric(Schedule):
    """alpha(t) = exp(-low^(1-t) high^t), with total noise that grows geometrically (SEDD; an ablation of MDLM)."""

    low: float = 1e-3
    high: float = 20.0

    def masked(self, time: Scalars) -> Scalars:
        return -time.__array_namespace__().expm1(-(self.low ** (1 - time)) * self.high**time)

    def alpha(self, time: Scalars) -> Scalars:
        return time.__array_namespace__().exp(-(self.low ** (1 - time)) * self.high**time)


@dataclass(frozen=True)
class Loop(Schedule):
    """The loop schedule of G-Star (arXiv 2510.08369), whose mask level is constant between t_off and t_on.

    1 - alpha(t) is level t / t_off below t_off, level up to t_on, and level + (1 - level)(t - t_on)/(1 - t_on) above,
    clipped to [0, 1 - 1e-6]. The schedule is for sampling: on the plateau its rate is 0, so that training there
    would have no effect.
    """

    t_off: float = 0.05
    t_on: float = 0.55
    level: float = 0.1

    def masked(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        before = self.level * time / self.t_off
        after = self.level + (1 - self.level) * (time - self.t_on) / (1 - self.t_on)
        level = numpy.where(time < self.t_off, before, numpy.where(time < self.t_on, self.level, after))
        return numpy.clip(level, 0, 1 - 1e-6)

    def alpha(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        falling = (1 - self.level) * (1 - time) / (1 - self.t_on)
        return numpy.where(time < self.t_on, 1 - self.masked(time), numpy.maximum(falling, 1e-6))


def rate(schedule: Schedule, time: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the weight of the continuous-time bound, -alpha'(t) / (1 - alpha(t)) (MDLM, arXiv 2406.07524)."""
    masked, slope = jax.jvp(schedule.masked, (time,), (jnp.ones_like(time),))
    return slope / masked


def sigma(schedule: Schedule, time: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the total noise -log alpha(t), the input of a network with time conditioning."""
    return -jnp.log(jnp.maximum(schedule.alpha(time), 1e-6))


def inverse(schedule: Schedule, alpha: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Find the time t in [0, 1] with alpha(t) = `alpha`, by bisection to float32 resolution."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        too_clean = schedule.alpha(middle) > alpha
        return jnp.where(too_clean, middle, low), jnp.where(too_clean, high, middle)

    low, high = jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(alpha), jnp.ones_like(alpha)))
    return (low + high) / 2
