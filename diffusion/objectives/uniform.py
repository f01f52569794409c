"""The continuous-time negative ELBO of uniform-state diffusion (UDLM)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.objectives.elbo import sample_times
from diffusion.objectives.loss import Loss, bind_batch, summed
from diffusion.processes.uniform import UniformDiffusion
from diffusion.readout import RowLogits, Rows, evaluated, read_all
from diffusion.rng import Draws
from diffusion.types import Batch, Denoise, Denoiser, LossMask, Params, Times, Tokens


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

    def integrand(logits: RowLogits, rows: Rows) -> Float[Array, " R"]:
        before, after = (rows.take(jnp.asarray(each))[:, None] for each in (noisy, tokens))
        return process.bound_integrand(logits, before, after, rows.of_examples(level))[:, 0]

    return jnp.sum(read_all(evaluated(denoise, noisy, time), integrand) * weights, axis=1)


@dataclass(frozen=True)
class UniformNelbo:
    """The loss of UDLM: the NELBO's integrand over time at one stratified time per example, in nats per token.

    The integrand is -alpha'(t) times that over the level (UDLM, arXiv 2412.10193); the prior term, which no parameter
    changes, is left out. Times lie in [minimum, 1): the variance grows like the logarithm of the smallest time.
    """

    denoiser: Denoiser
    process: UniformDiffusion
    minimum_time: float = 1e-3

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        time = sample_times(draws.uniform, self.minimum_time)
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        level, slope = jax.jvp(self.process.schedule.masked, (time,), (jnp.ones_like(time),))
        nats = slope * integrand_nats(self.process, denoise, batch["tokens"], batch["weights"], level, time, draws)
        return summed(nats, batch["weights"])
