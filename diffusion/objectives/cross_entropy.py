"""MDM-Prime's image loss: the cross-entropy of all positions, masked or not, with the same weight at all times."""

from dataclasses import dataclass

from diffusion.objectives.loss import Loss, bind_batch, summed, token_log_probs
from diffusion.readout import evaluated
from diffusion.rng import Draws
from diffusion.types import Batch, Denoiser, MaskedProcess, Params


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over tokens of -log p(x^i | z_t) with t ~ U(0, 1), in nats per token.

    All positions count, unmasked ones included; there is no weight and no carry-over filter, as in MDM-Prime's image
    experiments. The loss is not a bound on a likelihood: evaluate with one of the estimators in `likelihood`.
    """

    denoiser: Denoiser
    process: MaskedProcess

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        tokens, weights = batch["tokens"], batch["weights"]
        noisy = self.process.corrupt(draws.keys, tokens, draws.uniform)
        evaluation = evaluated(bind_batch(self.denoiser, params, batch, draws, train), noisy, draws.uniform)
        return summed(-token_log_probs(evaluation, tokens, self.process.vocabulary) * weights, weights)
