"""Self-conditioning perturbation (FastDiSS, arXiv 2604.05551): the estimate to be remembered is made at more noise.

At inference a network is served the estimate of the step before, which was made at a higher noise level than its own.
So in training, too, the estimate is made at t' = min(1, t + g) > t. That much is known; how g is drawn and how z_t'
goes with z_t was not to be had, and every option here is inferred.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.gaussian import GaussianDiffusion, expand_level
from diffusion.rng import fold, normal, uniform
from diffusion.types import Keys

# "fixed": g = size, the step of a grid of 1 / size steps. "randk": g = 1 / k, k one of `steps`. "uniform": t' ~
# U(t, 1). "uniform_gap": g ~ U(0, size).
GAPS = ("off", "fixed", "randk", "uniform", "uniform_gap")
# "independent": fresh noise, which gives the network a second look at the data. "markov": z_t' ~ q(z_t' | z_t), as in
# an ideal ancestral sampler: no second look. "shared": the noise of z_t; the two states then give the data away, and it
# is here to show that.
COUPLES = ("independent", "markov", "shared")
TokenTimes = Float[Array, "B L"]
Latents = Float[Array, "B L d"]


class Noised(NamedTuple):
    """z_t with what it was made of."""

    clean: Latents
    noisy: Latents
    noise: Latents
    time: TokenTimes


@dataclass(frozen=True)
class Perturbation:
    """How far ahead of its own time a network's memory is made, and from which noise; one gap an example.

    A share `probability` of the examples is perturbed. Where there is no gap the state is the network's own, so that
    gap "off", size 0 and probability 0 are standard self-conditioning, bit for bit.
    Raises:
      ValueError: for unknown names, and numbers out of range.
    """

    gap: str = "off"
    size: float = 0.2
    steps: tuple[int, ...] = (2, 3, 5, 10, 20)
    probability: float = 1.0
    couple: str = "independent"

    def __post_init__(self):
        for field, value, known in (("gap", self.gap, GAPS), ("couple", self.couple, COUPLES)):
            if value not in known:
                raise ValueError(f"scp.{field}: unknown {value!r}; known: {', '.join(known)}")
        for field, value in (("size", self.size), ("probability", self.probability)):
            if not 0 <= value <= 1:
                raise ValueError(f"scp.{field}: must lie in [0, 1], not {value}")
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"scp.steps: must be counts of at least 1, not {self.steps}")

    def gaps(self, keys: Keys, time: TokenTimes) -> TokenTimes:
        """g, before t + g is cut at 1."""
        if self.gap == "off":
            return jnp.zeros_like(time)
        uniform = uniforms(fold(keys, "gap"))
        if self.gap == "uniform":
            gap = uniform * (1 - time)
        elif self.gap == "randk":
            chosen = jnp.minimum((uniform * len(self.steps)).astype(jnp.int32), len(self.steps) - 1)
            gap = jnp.take(1 / jnp.asarray(self.steps, jnp.float32), chosen)
        else:
            gap = jnp.full_like(uniform, self.size) if self.gap == "fixed" else uniform * self.size
        perturbed = uniforms(fold(keys, "perturbed")) < self.probability
        return jnp.broadcast_to(jnp.where(perturbed, gap, 0.0), time.shape)

    def state(self, keys: Keys, process: GaussianDiffusion, now: Noised, later: TokenTimes) -> Latents:
        """z_t' given z_t; z_t itself wherever t' = t."""
        if self.gap == "off":
            return now.noisy
        ahead = coupled(self.couple, fold(keys, "ahead"), process, now, later)
        return jnp.where((later > now.time)[..., None], ahead, now.noisy)


STANDARD = Perturbation()


def coupled(couple: str, keys: Keys, process: GaussianDiffusion, now: Noised, later: TokenTimes) -> Latents:
    """z_t' = alpha' z_0 + sigma' F e' (independent, shared), or N(rho z_t, (sigma'^2 - rho^2 sigma^2) F^2) (markov)."""
    schedule, clean = process.schedule, now.clean
    if couple == "markov":
        ratio, deviation = markov(process, now.time, later)
        fresh = process.factor * normal(keys, clean.shape[1:])
        return expand_level(ratio, clean) * now.noisy + expand_level(deviation, clean) * fresh
    if couple == "independent":
        return process.corrupt(keys, clean, later)[0]
    return expand_level(schedule.alpha(later), clean) * clean + expand_level(schedule.sigma(later), clean) * now.noise


def markov(process: GaussianDiffusion, time: TokenTimes, later: TokenTimes) -> tuple[TokenTimes, TokenTimes]:
    """rho = alpha(t') / alpha(t) and sqrt(sigma'^2 - rho^2 sigma^2), without the factor of the noise."""
    schedule = process.schedule
    square = schedule.signal(later) / jnp.maximum(schedule.signal(time), 1e-12)
    variance = jnp.maximum(schedule.variance(later) - square * schedule.variance(time), 0)
    return jnp.sqrt(square), jnp.sqrt(variance)


def uniforms(keys: Keys) -> Float[Array, "B 1"]:
    """One uniform number an example."""
    return uniform(keys, (1,))
