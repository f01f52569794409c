"""Schedules of Gaussian diffusion: x_t = alpha(t) x_0 + sigma(t) noise, with alpha^2 + sigma^2 = 1.

Time falls from 1 (noise) to 0 (data). A schedule states its signal alpha^2 and its variance sigma^2, each written so
that small values keep their precision, in the array library and precision of the time that it is given.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from diffusion.types import Scalars


@runtime_checkable
class GaussianSchedule(Protocol):
    """Variance-preserving noise levels over time, for times of any shape."""

    def signal(self, time: Scalars) -> Scalars:
        """alpha(t)^2."""
        ...

    def variance(self, time: Scalars) -> Scalars:
        """sigma(t)^2."""
        ...

    def alpha(self, time: Scalars) -> Scalars:
        return self.signal(time) ** 0.5

    def sigma(self, time: Scalars) -> Scalars:
        return self.variance(time) ** 0.5


@dataclass(frozen=True)
class SigmaIsTime(GaussianSchedule):
    """sigma(t) = t (DINOISER, arXiv 2302.10025)."""

    def signal(self, time: Scalars) -> Scalars:
        return (1 - time) * (1 + time)

    def variance(self, time: Scalars) -> Scalars:
        return time * time


@dataclass(frozen=True)
class CosineSignal(GaussianSchedule):
    """alpha(t) = cos(pi t / 2) (Nichol and Dhariwal, arXiv 2102.09672, without their offset)."""

    def signal(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.cos(numpy.pi / 2 * time) ** 2

    def variance(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.sin(numpy.pi / 2 * time) ** 2


@dataclass(frozen=True)
class SquareRoot(GaussianSchedule):
    """alpha(t)^2 = 1 - sqrt(t + offset), clipped at 0 (Diffusion-LM, arXiv 2205.14217)."""

    offset: float = 1e-4

    def signal(self, time: Scalars) -> Scalars:
        return 1 - self.variance(time)

    def variance(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.minimum((time + self.offset) ** 0.5, 1.0)


@dataclass(frozen=True)
class Betas(GaussianSchedule):
    """A chain of `steps` small steps, alpha^2 = prod_{i < t steps} (1 - beta_i), between them linear in its logarithm.

    Time t = (i + 1) / steps is after beta_i, the index that Stable Diffusion's networks are told. Subclasses say what
    the betas are.
    """

    steps: int = 1000

    @abstractmethod
    def betas(self) -> Float[np.ndarray, " steps"]:
        """What each step adds to the variance."""

    @cached_property
    def log_signal(self) -> Float[np.ndarray, " points"]:
        """log alpha^2 at t = 0, 1 / steps, ..., 1, in float64."""
        return np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas()))])

    def interpolated(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        points = np.arange(self.steps + 1.0)
        return numpy.interp(time * self.steps, numpy.asarray(points), numpy.asarray(self.log_signal))

    def signal(self, time: Scalars) -> Scalars:
        return time.__array_namespace__().exp(self.interpolated(time))

    def variance(self, time: Scalars) -> Scalars:
        return -time.__array_namespace__().expm1(self.interpolated(time))


@dataclass(frozen=True)
class ScaledLinear(Betas):
    """sqrt(beta) grows linearly from sqrt(first) to sqrt(last): Stable Diffusion's schedule."""

    first: float = 0.00085
    last: float = 0.012

    def betas(self) -> Float[np.ndarray, " steps"]:
        return np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2


@dataclass(frozen=True)
class SquareRootChain(Betas):
    """The discrete form of `SquareRoot`: beta_i = min(1 - s(u_{i+1}) / s(u_i), limit) with u_i = i / steps.

    As in the public code of Difformer (arXiv 2212.09412); for s(0) = 0.99 the product is s(u_{i+1}) / 0.99.
    """

    steps: int = 2000
    offset: float = 1e-4
    limit: float = 0.999

    def betas(self) -> Float[np.ndarray, " steps"]:
        signal = 1 - np.sqrt(np.arange(self.steps + 1) / self.steps + self.offset)
        # The last signal is below 0, and its beta the limit.
        return np.minimum(1 - signal[1:] / signal[:-1], self.limit)


def rescaled(signal: Scalars, factor: float | Scalars) -> Scalars:
    """alpha^2 after the noise-to-signal ratio grew by factor^2: alpha^2 / (factor^2 - (factor^2 - 1) alpha^2)."""
    return signal / (factor**2 - (factor**2 - 1) * signal)
