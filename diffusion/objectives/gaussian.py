"""Regression of noise, clean data or velocity at random times: how Gaussian diffusion is trained."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.codecs.subtokens import PixelCodec
from diffusion.processes.gaussian import GaussianDiffusion
from diffusion.rng import Draws, bernoulli, fold
from diffusion.schedules.gaussian import Betas
from diffusion.types import Batch, Denoiser, Metrics, Params, Times


@dataclass(frozen=True)
class Denoising:
    """Mean over an example's values of (prediction - target)^2 at one stratified time (Ho et al., arXiv 2006.11239).

    On a chain times are its steps, else uniform in [minimum_time, 1). With probability `prompt_dropout` an example's
    prompt is replaced by `nothing` (classifier-free guidance, arXiv 2207.12598); none while evaluating.
    """

    denoiser: Denoiser
    process: GaussianDiffusion
    codec: PixelCodec
    prompt_dropout: float = 0.1
    nothing: int = 0
    minimum_time: float = 1e-3

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        clean = self.codec.encode(batch["tokens"])
        time = self.times(draws.uniform)
        noisy, noise = self.process.corrupt(draws.keys, clean, time)
        told = batch.get("prompt")
        if told is not None and train and self.prompt_dropout:
            coins = bernoulli(fold(draws.keys, "prompt"), self.prompt_dropout)
            told = jnp.where(coins[:, None], self.nothing, told)
        keys = fold(draws.keys, "dropout") if train else None
        prediction = self.denoiser(params, noisy, time, told, keys=keys)
        square = (prediction.astype(jnp.float32) - self.process.target(clean, noise, time)) ** 2
        weights = batch["weights"][:, 0]
        total = jnp.sum(jnp.mean(square.reshape(len(clean), -1), axis=1) * weights)
        return total, {"loss": (total, jnp.sum(weights))}

    def times(self, uniform: Float[Array, " B"]) -> Times:
        """Uniforms to times."""
        schedule = self.process.schedule
        if isinstance(schedule, Betas):
            return (jnp.floor(uniform * schedule.steps) + 1) / schedule.steps
        return self.minimum_time + (1 - self.minimum_time) * uniform
