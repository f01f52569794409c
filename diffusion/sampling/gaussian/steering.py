"""Feynman-Kac steering (sequential Monte Carlo on rewards), and the best of several samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.rng import fold
from diffusion.types import Keys, Number

POTENTIALS = ("difference", "max", "sum", "reward")


class ParticleWeights(NamedTuple):
    """The running reward of every particle, and the product of its potentials."""

    running: Float[Array, " B"]
    product: Float[Array, " B"]


@dataclass(frozen=True)
class Steering:
    """FK steering: the particles of a prompt are resampled in proportion to a potential G (arXiv 2501.06848).

    With the reward r of the clean estimate and a running reward that starts at 0, as in the public code, the potential
    is
      "difference": G = exp(strength (r - running)), then running <- r;
      "max": running <- max(r, running), then G = exp(strength running);
      "sum": running <- running + r, then G = exp(strength running);
      "reward": running <- r, then G = exp(strength running).
    In the last step all but "difference" divide G by the product of the previous potentials, so that the weight of a
    whole path is exp(strength running). In the last step, and with `adaptive` in every step, particles are resampled
    only if the effective sample size is below half of their number; the potential of a step without resampling does not
    enter the product. `reward(clean, carry)` reads the clean estimate before the step, and each `particles` consecutive
    examples belong to one prompt.

    Raises:
      ValueError: if the potential is not known, or if `particles` is below 1.
    """

    reward: Callable[[Any, Any], Float[Array, " B"]]
    particles: int
    strength: Number = 10.0
    potential: str = "difference"
    adaptive: bool = False

    def __post_init__(self):
        if self.potential not in POTENTIALS:
            raise ValueError(f"steering.potential: unknown {self.potential!r}; known: {', '.join(POTENTIALS)}")
        if self.particles < 1:
            raise ValueError(f"steering.particles: must be at least 1, not {self.particles}")

    def init(self, size: int) -> ParticleWeights:
        """Return the weights before the first step.

        Raises:
          ValueError: if the number of particles does not divide `size`.
        """
        if size % self.particles:
            raise ValueError(f"steering.particles: {self.particles} do not divide the batch of {size}")
        return ParticleWeights(jnp.zeros(size), jnp.ones(size))

    def __call__(
        self, keys: Keys, x: Array, clean: Array, carry: Any, weights: ParticleWeights, row: Any
    ) -> tuple[Array, Array, Any, ParticleWeights]:
        """Resample states, estimates, carry and weights where `row.resampled` of a step, Gaussian or discrete."""

        def resample():
            running, potential = self.potentials(self.reward(clean, carry), weights, row.last)
            groups = potential.reshape(-1, self.particles)
            indices = jax.vmap(draw_indices)(fold(keys[:: self.particles], "resample"), groups)
            degenerate = effective_size(groups) < self.particles / 2
            unchanged = ~degenerate & (row.last | self.adaptive)
            indices = jnp.where(unchanged[:, None], jnp.arange(self.particles)[None], indices)
            offsets = jnp.arange(len(groups))[:, None] * self.particles
            indices, skipped = (indices + offsets).reshape(-1), jnp.repeat(unchanged, self.particles)
            product = jnp.where(skipped, weights.product, (weights.product * potential)[indices])
            moved = jax.tree.map(lambda leaf: leaf[indices], (x, clean, carry))
            return *moved, ParticleWeights(running[indices], product)

        return jax.lax.cond(row.resampled, resample, lambda: (x, clean, carry, weights))

    def potentials(
        self, reward: Float[Array, " B"], weights: ParticleWeights, last: Array
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """Return the new running rewards, and G clipped to [0, 1e10] with 0 in place of NaN."""
        running = {
            "difference": reward,
            "max": jnp.maximum(reward, weights.running),
            "sum": reward + weights.running,
            "reward": reward,
        }[self.potential]
        if self.potential == "difference":
            potential = jnp.exp(self.strength * (reward - weights.running))
        else:
            potential = jnp.exp(self.strength * running)
            potential = jnp.where(last, potential / weights.product, potential)
        return running, jnp.clip(jnp.nan_to_num(potential, nan=0.0, posinf=1e10), 0.0, 1e10)


def draw_indices(key: Key[Array, ""], potential: Float[Array, " N"]) -> Int[Array, " N"]:
    """Draw N indices independently in proportion to the potentials, or uniformly if all of them are 0."""
    logits = jnp.where(jnp.sum(potential) > 0, jnp.log(potential), 0.0)
    return jax.random.categorical(key, logits, shape=potential.shape)


def effective_size(potential: Float[Array, "P N"]) -> Float[Array, " P"]:
    """Return the effective sample size (sum G)^2 / sum G^2 of each group, between 1 and N."""
    scaled = potential / jnp.maximum(jnp.max(potential, axis=1, keepdims=True), 1e-30)
    return jnp.sum(scaled, axis=1) ** 2 / jnp.maximum(jnp.sum(scaled**2, axis=1), 1e-30)


def best(x: Array, rewards: Float[Array, " B"], groups: int, count: int) -> Float[Array, "C ..."]:
    """Return the `count` samples with the largest rewards of each group of consecutive samples, best first."""
    scores = rewards.reshape(groups, -1)
    order = jnp.argsort(-scores, axis=1)[:, :count]
    return x[(order + jnp.arange(groups)[:, None] * scores.shape[1]).reshape(-1)]
