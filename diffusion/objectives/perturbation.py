"""Self-conditioning perturbation (SCP; FastDiSS, arXiv 2604.05551): estimates at a higher noise level in training.

In inference the self-conditioning input is the estimate of the previous step, at a higher noise level than that of the
current step. In training the estimate is therefore computed at t' = min(1, t + g) > t. The paper's distribution of g
and its joint distribution of z_t' and z_t were not available to us: all options are inferred.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.processes.gaussian import GaussianDiffusion, expand_level
from diffusion.rng import fold, normal, uniform
from diffusion.types import Keys

# "fixed": g = size, the step of a grid of 1 / size steps. "randk": g = 1 / k with k drawn from `steps`. "uniform":
# t' ~ U(t, 1). "uniform_gap": g ~ U(0, size).
GAPS = ("off", "fixed", "randk", "uniform", "uniform_gap")
# "independent": new noise, so that z_t' has information on the data that z_t lacks. "markov": z_t' ~ q(z_t' | z_t), as
# in an ideal ancestral sampler, without such information. "shared": the noise of z_t, so that the two states determine
# the data; a negative control.
COUPLES = ("independent", "markov", "shared")
TokenTimes = Float[Array, "B L"]
Latents = Float[Array, "B L d"]


class NoisyState(NamedTuple):
    """z_t with its clean data, noise and times."""

    clean: Latents
    noisy: Latents
    noise: Latents
    time: TokenTimes


@dataclass(frozen=True)
class Perturbation:
    """The gap between the time of the self-conditioning estimate and that of the network, and the noise at that time.

    There is one gap per example, and a fraction `probability` of the examples is perturbed. Without a gap the state is
    the network's own, so that gap "off", size 0 and probability 0 are standard self-conditioning, bit for bit.

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
        """Draw g, one per example; t + g may exceed 1."""
        if self.gap == "off":
            return jnp.zeros_like(time)
        uniforms = uniform(fold(keys, "gap"), (1,))  # one number per example
        if self.gap == "uniform":
            gap = uniforms * (1 - time)
        elif self.gap == "randk":
            index = jnp.minimum((uniforms * len(self.steps)).astype(jnp.int32), len(self.steps) - 1)
            gap = jnp.take(1 / jnp.asarray(self.steps, jnp.float32), index)
        else:
            gap = jnp.full_like(uniforms, self.size) if self.gap == "fixed" else uniforms * self.size
        perturbed = uniform(fold(keys, "perturbed"), (1,)) < self.probability
        return jnp.broadcast_to(jnp.where(perturbed, gap, 0.0), time.shape)

    def state(self, keys: Keys, process: GaussianDiffusion, current: NoisyState, later: TokenTimes) -> Latents:
        """Draw z_t' given z_t; where t' = t it is z_t exactly.

        z_t' is alpha' z_0 + sigma' F e' with new noise e' (independent) or that of z_t (shared), or a draw from
        N(rho z_t, (sigma'^2 - rho^2 sigma^2) F^2) (markov). F is the factor of the noise.
        """
        if self.gap == "off":
            return current.noisy
        keys, clean, schedule = fold(keys, "ahead"), current.clean, process.schedule
        if self.couple == "markov":
            ratio, deviation = transition(process, current.time, later)
            noise = process.factor * normal(keys, clean.shape[1:])
            later_noisy = expand_level(ratio, clean) * current.noisy + expand_level(deviation, clean) * noise
        elif self.couple == "independent":
            later_noisy = process.corrupt(keys, clean, later)[0]
        else:
            signal = expand_level(schedule.alpha(later), clean) * clean
            later_noisy = signal + expand_level(schedule.sigma(later), clean) * current.noise
        return jnp.where((later > current.time)[..., None], later_noisy, current.noisy)


STANDARD = Perturbation()


def transition(process: GaussianDiffusion, time: TokenTimes, later: TokenTimes) -> tuple[TokenTimes, TokenTimes]:
    """Compute rho = alpha(t') / alpha(t) and sqrt(sigma'^2 - rho^2 sigma^2), without the factor of the noise."""
    schedule = process.schedule
    square = schedule.signal(later) / jnp.maximum(schedule.signal(time), 1e-12)
    variance = jnp.maximum(schedule.variance(later) - square * schedule.variance(time), 0)
    return jnp.sqrt(square), jnp.sqrt(variance)
