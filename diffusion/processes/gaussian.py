"""Gaussian noise on continuous data, and the three things that a network may predict of it."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.rng import fold, normal
from diffusion.schedules.gaussian import GaussianSchedule
from diffusion.types import Keys

Data = Float[Array, "B *shape"]
Level = Float[Array, "..."]  # alpha or sigma: a scalar, or an array that starts like the data's shape
# Noise (epsilon), the clean data (x_0), the velocity alpha epsilon - sigma x_0, and for flows epsilon - x_0.
PREDICTIONS = ("epsilon", "clean", "velocity", "flow")


def spread(level: Level, like: Data) -> Level:
    """A level of the first axes of `like`, with axes of length 1 for the others."""
    return jnp.reshape(level, jnp.shape(level) + (1,) * (like.ndim - jnp.ndim(level)))


def target(kind: str, clean: Data, noise: Data, alpha: Level, sigma: Level) -> Data:
    """What a network of this kind is trained to predict."""
    alpha, sigma = spread(alpha, clean), spread(sigma, clean)
    if kind == "epsilon":
        return noise
    if kind == "clean":
        return clean
    return alpha * noise - sigma * clean if kind == "velocity" else noise - clean


def to_clean(kind: str, prediction: Data, noisy: Data, alpha: Level, sigma: Level) -> Data:
    """x_0 as a prediction of any kind implies it; the one place where kinds are converted.

    epsilon: (x - sigma e) / alpha. velocity: (alpha x - sigma v) / (alpha^2 + sigma^2). flow: (x - sigma u) / (alpha +
    sigma), which is x - t u on the path alpha = 1 - t, sigma = t.
    """
    alpha, sigma = spread(alpha, noisy), spread(sigma, noisy)
    if kind == "epsilon":
        return (noisy - sigma * prediction) / alpha
    if kind == "clean":
        return prediction
    if kind == "velocity":
        return (alpha * noisy - sigma * prediction) / (alpha**2 + sigma**2)
    return (noisy - sigma * prediction) / (alpha + sigma)


@dataclass(frozen=True)
class GaussianDiffusion:
    """q(x_t | x_0) = N(alpha(t) x_0, (sigma(t) factor)^2) (factor: the noise rescaling of Difformer; else 1).

    Raises:
      ValueError: for an unknown parameterization or a factor that is not positive.
    """

    schedule: GaussianSchedule
    parameterization: str = "epsilon"
    factor: float = 1.0

    def __post_init__(self):
        if self.parameterization not in PREDICTIONS:
            known = ", ".join(PREDICTIONS)
            raise ValueError(f"process.prediction: unknown {self.parameterization!r}; known: {known}")
        if self.factor <= 0:
            raise ValueError(f"process.factor: must be positive, not {self.factor}")

    def corrupt(self, keys: Keys, clean: Data, time: Level) -> tuple[Data, Data]:
        """x_t and the noise in it; times [B], or [B, L] where each position has its own."""
        noise = self.factor * normal(fold(keys, "corrupt"), clean.shape[1:])
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return spread(alpha, clean) * clean + spread(sigma, clean) * noise, noise

    def target(self, clean: Data, noise: Data, time: Level) -> Data:
        """What the network is to predict."""
        return target(self.parameterization, clean, noise, self.schedule.alpha(time), self.schedule.sigma(time))

    def clean(self, prediction: Data, noisy: Data, alpha: Level, sigma: Level) -> Data:
        """x_0 as a prediction implies it."""
        return to_clean(self.parameterization, prediction, noisy, alpha, sigma)
