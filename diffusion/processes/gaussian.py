"""Gaussian noise on continuous data, and conversions between the quantities that a network may predict."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.rng import fold, normal
from diffusion.schedules.gaussian import GaussianSchedule
from diffusion.types import Keys

Data = Float[Array, "B *shape"]
Level = Float[Array, "..."]  # alpha or sigma: a scalar, or one number per example or position
# epsilon: the noise; clean: x_0; velocity: alpha epsilon - sigma x_0; flow: epsilon - x_0.
PREDICTIONS = ("epsilon", "clean", "velocity", "flow")


def expand_level(level: Level, like: Data) -> Level:
    """Append axes of length 1 to `level` until it has as many axes as `like`."""
    return jnp.reshape(level, jnp.shape(level) + (1,) * (like.ndim - jnp.ndim(level)))


def target(kind: str, clean: Data, noise: Data, alpha: Level, sigma: Level) -> Data:
    """Compute the regression target of a network that predicts `kind`."""
    alpha, sigma = expand_level(alpha, clean), expand_level(sigma, clean)
    if kind == "epsilon":
        return noise
    if kind == "clean":
        return clean
    return alpha * noise - sigma * clean if kind == "velocity" else noise - clean


def to_clean(kind: str, prediction: Data, noisy: Data, alpha: Level, sigma: Level) -> Data:
    """Convert a prediction of any kind to a clean estimate x_0.

    epsilon: (x - sigma e) / alpha; velocity: (alpha x - sigma v) / (alpha^2 + sigma^2); flow: (x - sigma u) / (alpha +
    sigma), which is x - t u for alpha = 1 - t and sigma = t.
    """
    alpha, sigma = expand_level(alpha, noisy), expand_level(sigma, noisy)
    if kind == "epsilon":
        return (noisy - sigma * prediction) / alpha
    if kind == "clean":
        return prediction
    if kind == "velocity":
        return (alpha * noisy - sigma * prediction) / (alpha**2 + sigma**2)
    return (noisy - sigma * prediction) / (alpha + sigma)


@dataclass(frozen=True)
class GaussianDiffusion:
    """Gaussian diffusion, q(x_t | x_0) = N(alpha(t) x_0, (sigma(t) factor)^2 I).

    `factor` is the noise rescaling of Difformer (arXiv 2212.09412), and 1 elsewhere. `parameterization` is the kind of
    prediction: one of `PREDICTIONS`.

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
        """Draw x_t and return it with its noise, times `factor`; `time` is [B], or [B, L] for a time per position."""
        noise = self.factor * normal(fold(keys, "corrupt"), clean.shape[1:])
        alpha, sigma = self.schedule.alpha(time), self.schedule.sigma(time)
        return expand_level(alpha, clean) * clean + expand_level(sigma, clean) * noise, noise

    def target(self, clean: Data, noise: Data, time: Level) -> Data:
        """Compute the regression target of the network."""
        return target(self.parameterization, clean, noise, self.schedule.alpha(time), self.schedule.sigma(time))

    def clean(self, prediction: Data, noisy: Data, alpha: Level, sigma: Level) -> Data:
        """Convert the network's prediction to a clean estimate x_0."""
        return to_clean(self.parameterization, prediction, noisy, alpha, sigma)
