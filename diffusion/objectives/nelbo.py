"""The continuous-time negative ELBO of masked diffusion, MDLM's training loss."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.categorical import target_log_probs
from diffusion.corrupt.masking import Masking
from diffusion.randomness import Draws, fold
from diffusion.schedules import rate
from diffusion.types import Batch, Denoise, Denoiser, Metrics, Params, Times, Tokens


def sample_times(uniform: Float[Array, "B"], minimum: float) -> Times:
    """Map uniforms to times in [minimum, 1), away from the pole of the weight at t = 0."""
    return minimum + (1 - minimum) * uniform


def weighted_cross_entropy(
    process: Masking,
    denoise: Denoise,
    clean: Tokens,
    weights: Float[Array, "B L"],
    time: Times,
    draws: Draws,
) -> Float[Array, "B"]:
    """One draw of -alpha'(t)/(1 - alpha(t)) sum_{masked i} -log p(x^i | z_t), in nats a sequence.

    Its mean over t ~ U(0, 1) and z_t is the NELBO (MDLM; arXiv 2406.07524). Carry-over is exact:
    positions that are not masked contribute nothing.
    """
    noisy = process.corrupt(draws.keys, clean, time)
    log_prob = target_log_probs(denoise(noisy, time), clean, process.mask_id)
    hidden = (noisy == process.mask_id) * weights
    return rate(process.schedule, time) * jnp.sum(-log_prob * hidden, axis=1)


@dataclass(frozen=True)
class Nelbo:
    """Mean over tokens of the NELBO integrand at one stratified time an example, in nats per token."""

    denoiser: Denoiser
    process: Masking
    minimum_time: float = 1e-3

    def __call__(
        self, params: Params, batch: Batch, draws: Draws, train: bool = True
    ) -> tuple[Float[Array, ""], Metrics]:
        time = sample_times(draws.uniform, self.minimum_time)
        keys = fold(draws.keys, "dropout") if train else None

        def denoise(noisy: Tokens, time: Times):
            return self.denoiser(params, noisy, time, batch.get("cond"), keys=keys)

        nats = weighted_cross_entropy(self.process, denoise, batch["tokens"], batch["weights"], time, draws)
        total, tokens = jnp.sum(nats), jnp.sum(batch["weights"])
        return total, {"loss": (total, tokens)}
