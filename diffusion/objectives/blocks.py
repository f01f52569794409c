"""The negative ELBO of block diffusion, in one pass over the noisy and the clean sequence."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.objectives.elbo import masked_token_nats, row_share
from diffusion.objectives.loss import Loss, bind_batch, summed
from diffusion.processes.blocks import BlockDiffusion
from diffusion.readout import evaluated
from diffusion.rng import Draws
from diffusion.types import Batch, Denoise, Denoiser, LossMask, Params, Tokens


def block_nats(
    denoise: Denoise,
    process: BlockDiffusion,
    tokens: Tokens,
    weights: LossMask,
    hidden: Bool[Array, "B L"],
    scales: Float[Array, "B N"],
    mean: float,
) -> Float[Array, " B"]:
    """Sum scale_b sum_{i hidden in block b} -log p(x^i | z^b, x^{<b}) over N blocks, in nats per sequence.

    `mean` is the expected share of hidden tokens.
    """
    noisy = jnp.where(hidden, process.mask_id, tokens)
    evaluation = evaluated(denoise, process.state(noisy, tokens), jnp.zeros(len(tokens)))
    nats = masked_token_nats(process, evaluation, noisy, tokens, weights, row_share(tokens.shape, mean))
    return jnp.sum(scales * jnp.sum(process.by_block(nats), axis=-1), axis=-1)


def reveal_block_bound(
    denoise: Denoise, process: BlockDiffusion, tokens: Tokens, weights: LossMask, draws: Draws
) -> Float[Array, " B"]:
    """Draw an unbiased estimate of the sum of the blocks' NELBOs (BD3-LM, arXiv 2503.09573), in nats per sequence.

    In each block the state is the one from which a random position is revealed, with the weight S / |hidden| (see
    `reveal`). For one token per block the value is exact, and for one block it is the bound of MDLM.
    """
    noise = process.by_block(process.noise(draws.keys, tokens.shape[1], draws.uniform))
    levels = process.levels(draws.uniform, noise.shape[1])
    rank = jnp.minimum((levels * process.block).astype(jnp.int32), process.block - 1)
    level = jnp.take_along_axis(jnp.sort(noise, axis=-1), rank[..., None], axis=-1)
    hidden = noise <= level
    scales = process.block / jnp.sum(hidden, axis=-1)
    mean = (process.block + 1) / (2 * process.block)
    return block_nats(denoise, process, tokens, weights, hidden.reshape(tokens.shape), scales, mean)


def clipped_block_loss(
    denoise: Denoise,
    process: BlockDiffusion,
    tokens: Tokens,
    weights: LossMask,
    draws: Draws,
    low: float,
    high: float,
) -> Float[Array, " B"]:
    """Draw the loss with mask levels l ~ U(low, high) and the weight 1 / l, in nats per sequence: NOT a bound.

    It is the training loss of BD3-LM with a clipped noise schedule (arXiv 2503.09573, section 5), which leaves out the
    levels at which gradients vary most. With (0, 1) it is the NELBO, whose weight has a pole.
    """
    noise = process.by_block(process.noise(draws.keys, tokens.shape[1], draws.uniform))
    level = low + (high - low) * process.levels(draws.uniform, noise.shape[1])
    hidden = noise < level[..., None]
    mean = (low + high) / 2
    return block_nats(denoise, process, tokens, weights, hidden.reshape(tokens.shape), 1 / level, mean)


@dataclass(frozen=True)
class BlockNelbo:
    """The loss of BD3-LM, in nats per token: `reveal_block_bound`, or `clipped_block_loss` between two `levels`."""

    denoiser: Denoiser
    process: BlockDiffusion
    levels: tuple[float, float] | None = None

    def __call__(self, params: Params, batch: Batch, draws: Draws, train: bool = True) -> Loss:
        denoise = bind_batch(self.denoiser, params, batch, draws, train)
        inputs = denoise, self.process, batch["tokens"], batch["weights"], draws
        nats = reveal_block_bound(*inputs) if self.levels is None else clipped_block_loss(*inputs, *self.levels)
        return summed(nats, batch["weights"])
