"""Particles: Feynman-Kac steering (sequential Monte Carlo on rewards) and the best of several samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from diffusion.processes.gaussian import Data
from diffusion.rng import fold
from diffusion.sampling.gaussian.sampler import Carry, rows_of
from diffusion.sampling.gaussian.solvers import GaussianGrid
from diffusion.types import Keys, Number

POTENTIALS = ("difference", "max", "sum", "reward")


class ParticleWeights(NamedTuple):
    """The running reward of every particle, and the product of its potentials so far."""

    running: Float[Array, " B"]
    product: Float[Array, " B"]


@dataclass(frozen=True)
class Steering:
    """FK steering (arXiv 2501.06848): after chosen steps particles of a prompt are drawn anew in proportion to G.

    `difference`: G = exp(strength (r - running)); `max`: running <- max(r, running), G = exp(strength running); `sum`:
    running <- running + r, the same G; `reward`: G = exp(strength r). In the last step all but the first divide
    exp(strength running) by the product so far, so that the weights of a whole path are exp(strength r_T). The running
    reward starts at 0, as in the public code. In the last step, and with `adaptive` in every one, nothing is drawn
    unless the effective sample size is below half of the particles; the weights of such a step are not carried over.
    `reward(clean)` scores the clean estimate before the step; consecutive `particles` are of one prompt.

    Raises:
      ValueError: for an unknown potential or fewer than one particle.
    """

    reward: Callable[[Data, Carry], Float[Array, " B"]]
    particles: int
    strength: Number = 10.0
    potential: str = "difference"
    adaptive: bool = False

    def __post_init__(self):
        if self.potential not in POTENTIALS:
            known = ", ".join(POTENTIALS)
            raise ValueError(f"sample.guide.potential: unknown {self.potential!r}; known: {known}")
        if self.particles < 1:
            raise ValueError(f"sample.guide.particles: must be at least 1, not {self.particles}")

    def init(self, size: int) -> ParticleWeights:
        """Nothing earned yet; raises ValueError unless the particles divide the batch."""
        if size % self.particles:
            raise ValueError(f"sample.guide.particles: {self.particles} do not divide the batch of {size}")
        return ParticleWeights(jnp.zeros(size), jnp.ones(size))

    def __call__(
        self, keys: Keys, x: Data, clean: Data, carry: Carry, weights: ParticleWeights, row: GaussianGrid
    ) -> tuple[Data, Data, Carry, ParticleWeights]:
        def weigh():
            last = row.last
            reward = self.reward(clean, carry)
            running, potential = self.potentials(reward, weights, last)
            group_keys = fold(keys[:: self.particles], "resample")
            groups = potential.reshape(-1, self.particles)
            chosen = jax.vmap(draw_indices)(group_keys, groups)
            thin = effective_size(groups) < self.particles / 2
            kept = ~thin & (last | self.adaptive)
            chosen = jnp.where(kept[:, None], jnp.arange(self.particles)[None], chosen)
            offsets = jnp.arange(len(groups))[:, None] * self.particles
            chosen, skipped = (chosen + offsets).reshape(-1), jnp.repeat(kept, self.particles)
            product = jnp.where(skipped, weights.product, (weights.product * potential)[chosen])
            return *rows_of((x, clean, carry), chosen), ParticleWeights(running[chosen], product)

        return jax.lax.cond(row.resampled, weigh, lambda: (x, clean, carry, weights))

    def potentials(
        self, reward: Float[Array, " B"], weights: ParticleWeights, last: Array
    ) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
        """The new running rewards, and G clamped to [0, 1e10] with 0 for what is no number."""
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
    """N independent draws in proportion to the potentials; uniform where all are 0."""
    logits = jnp.where(jnp.sum(potential) > 0, jnp.log(potential), 0.0)
    return jax.random.categorical(key, logits, shape=potential.shape)


def effective_size(potential: Float[Array, "P N"]) -> Float[Array, " P"]:
    """(sum G)^2 / sum G^2, between 1 and N."""
    scaled = potential / jnp.maximum(jnp.max(potential, axis=1, keepdims=True), 1e-30)
    return jnp.sum(scaled, axis=1) ** 2 / jnp.maximum(jnp.sum(scaled**2, axis=1), 1e-30)


def best(x: Data, rewards: Float[Array, " B"], groups: int, kept: int) -> Float[Array, "C ..."]:
    """The `kept` best of each group of consecutive samples, the best first."""
    scores = rewards.reshape(groups, -1)
    order = jnp.argsort(-scores, axis=1)[:, :kept]
    return x[(order + jnp.arange(groups)[:, None] * scores.shape[1]).reshape(-1)]
