"""The denoising objective of Gaussian diffusion: regression of noise, clean data or velocity at random times."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.codecs.subtokens import PixelCodec
from diffusion.objectives.elbo import sample_times
from diffusion.objectives.loss import Loss, summed
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import Draws, bernoulli, fold
from diffusion.schedules.gaussian import BetaChain
from diffusion.types import Batch, Denoiser, Params, Times


@dataclass(frozen=True)
class Denoising:
    """Mean over values of (prediction - target)^2 at one stratified time per example (Ho et al., arXiv 2006.11239).

    Times are the steps of a chain, or for other schedules uniform in [minimum_time, 1). In training an example's
    prompt is replaced by the null token `null_id` with probability `prompt_dropout` (classifier-free guidance,
    arXiv 2207.12598).
    """

    denoiser: Denoiser
    process: GaussianDiffusion
    codec: PixelCodec
    prompt_dropout: float = 0.1
    null_id: int = 0
    minimum_time: float = 1e-3

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        clean = self.codec.encode(batch["tokens"])
        time = self.times(draws.uniform)
        noisy, noise = self.process.corrupt(draws.keys, clean, time)
        prompt = batch.get("prompt")
        if prompt is not None and train and self.prompt_dropout:
            coins = bernoulli(fold(draws.keys, "prompt"), self.prompt_dropout)
            prompt = jnp.where(coins[:, None], self.null_id, prompt)
        keys = fold(draws.keys, "dropout") if train else None
        prediction = self.denoiser(params, noisy, time, prompt, keys=keys)
        square = (prediction.astype(jnp.float32) - self.process.target(clean, noise, time)) ** 2
        weights = batch["weights"][:, 0]
        return summed(jnp.mean(square.reshape(len(clean), -1), axis=1) * weights, weights)

    def times(self, uniform: Float[Array, " B"]) -> Times:
        """Map uniform numbers to times."""
        schedule = self.process.schedule
        if isinstance(schedule, BetaChain):
            return (jnp.floor(uniform * schedule.steps) + 1) / schedule.steps
        return sample_times(uniform, self.minimum_time)
