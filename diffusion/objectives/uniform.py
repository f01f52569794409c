"""The continuous-time negative ELBO of uniform-state diffusion (UDLM)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.objectives.elbo import sample_times
from diffusion.processes.uniform import UniformDiffusion
from diffusion.rng import Draws, fold
from diffusion.types import Batch, Denoise, Denoiser, LossMask, Metrics, Params, Symbols, Times, Tokens


def integrand_nats(
    process: UniformDiffusion,
    denoise: Denoise,
    tokens: Tokens,
    weights: LossMask,
    level: Float[Array, " B"],
    time: Times,
    draws: Draws,
) -> Float[Array, " B"]:
    """Draw a state at `level`, for which the network reads `time`, and sum its integrand, in nats per sequence."""
    noisy = process.noised(draws.keys, tokens, level)
    return jnp.sum(process.bound_integrand(denoise(noisy, time), noisy, tokens, level) * weights, axis=1)


@dataclass(frozen=True)
class UniformNelbo:
    """The loss of UDLM: the NELBO's integrand over time at one stratified time per example, in nats per token.

    The integrand is -alpha'(t) times that over the level (UDLM, arXiv 2412.10193); the prior term, which no parameter
    changes, is left out. Times lie in [minimum, 1): the variance grows like the logarithm of the smallest time.
    """

    denoiser: Denoiser
    process: UniformDiffusion
    minimum_time: float = 1e-3

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        time = sample_times(draws.uniform, self.minimum_time)
        keys = fold(draws.keys, "dropout") if train else None

        def denoise(noisy: Symbols, time: Times):
            return self.denoiser(params, noisy, time, batch.get("label"), keys=keys)

        level, slope = jax.jvp(self.process.schedule.masked, (time,), (jnp.ones_like(time),))
        nats = slope * integrand_nats(self.process, denoise, batch["tokens"], batch["weights"], level, time, draws)
        total, tokens = jnp.sum(nats), jnp.sum(batch["weights"])
        return total, {"loss": (total, tokens)}
