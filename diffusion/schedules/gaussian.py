"""Schedules of Gaussian diffusion: x_t = alpha(t) x_0 + sigma(t) noise, with alpha^2 + sigma^2 = 1.

Generation runs from time 1 (noise) to time 0 (data). A schedule defines both its signal alpha^2 and its variance
sigma^2, each without cancellation, in the array library and precision of `time`.
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
        """alpha(t)^2, at times of any shape."""
        ...

    def variance(self, time: Scalars) -> Scalars:
        """sigma(t)^2, at times of any shape."""
        ...

    def alpha(self, time: Scalars) -> Scalars:
        """alpha(t), the factor of the data."""
        return self.signal(time) ** 0.5

    def sigma(self, time: Scalars) -> Scalars:
        """sigma(t), the factor of the noise."""
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
    """alpha(t) = cos(pi t / 2) (Nichol and Dhariwal, arXiv 2102.09672, without the offset)."""

    def signal(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.cos(numpy.pi / 2 * time) ** 2

    def variance(self, time: Scalars) -> Scalars:
        numpy = time.__array_namespace__()
        return numpy.sin(numpy.pi / 2 * time) ** 2


@dataclass(frozen=True)
class BetaChain(GaussianSchedule):
    """A Markov chain of `steps` steps, alpha(t)^2 = prod_{i < t steps} (1 - beta_i).

    Between steps log alpha^2 is linear in time. Time t = (i + 1) / steps follows beta_i; i is the timestep that
    Stable Diffusion's networks read. Subclasses define the betas.
    """

    steps: int = 1000

    @abstractmethod
    def betas(self) -> Float[np.ndarray, " steps"]:
        """The variance that each step adds, in float64."""

    @cached_property
    def log_signal(self) -> Float[np.ndarray, " points"]:
        """log alpha^2 at t = 0, 1 / steps, ..., 1, in float64."""
        return np.concatenate([[0.0], np.cumsum(np.log1p(-self.betas()))])

    def log_signal_at(self, time: Scalars) -> Scalars:
        """log alpha(t)^2, by linear interpolation."""
        numpy = time.__array_namespace__()
        points = np.arange(self.steps + 1.0)
        return numpy.interp(time * self.steps, numpy.asarray(points), numpy.asarray(self.log_signal))

    def signal(self, time: Scalars) -> Scalars:
        return time.__array_namespace__().exp(self.log_signal_at(time))

    def variance(self, time: Scalars) -> Scalars:
        return -time.__array_namespace__().expm1(self.log_signal_at(time))


@dataclass(frozen=True)
class ScaledLinear(BetaChain):
    """The schedule of Stable Diffusion: sqrt(beta) is linear from sqrt(first) to sqrt(last)."""

    first: float = 0.00085
    last: float = 0.012

    def betas(self) -> Float[np.ndarray, " steps"]:
        return np.linspace(self.first**0.5, self.last**0.5, self.steps) ** 2


@dataclass(frozen=True)
class SquareRootChain(BetaChain):
    """The chain of beta_i = min(1 - s(u_{i+1}) / s(u_i), limit) with s(u) = 1 - sqrt(u + offset) and u_i = i / steps.

    s is the signal of Diffusion-LM (arXiv 2205.14217), and the chain that of Difformer's code (arXiv 2212.09412). As
    s(0) = 0.99, the product of the steps is s(u_{i+1}) / 0.99.
    """

    steps: int = 2000
    offset: float = 1e-4
    limit: float = 0.999

    def betas(self) -> Float[np.ndarray, " steps"]:
        signal = 1 - np.sqrt(np.arange(self.steps + 1) / self.steps + self.offset)
        # The last signal is negative, so that the last beta is the limit.
        return np.minimum(1 - signal[1:] / signal[:-1], self.limit)
