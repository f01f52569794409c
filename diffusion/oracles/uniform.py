"""Exact denoisers of small languages under uniform noise."""

import jax
import jax.numpy as jnp

from diffusion.oracles.enumerable import Enumerable
from diffusion.processes.uniform import LOWEST, UniformDiffusion
from diffusion.types import Denoise, Logits, Times, Tokens


def uniform_posterior(language: Enumerable, process: UniformDiffusion, *, leave_one_out: bool = True) -> Denoise:
    """The leave-one-out posterior log p(x^i | z_t^{-i}) as a denoiser, [B, L, K], a sum over all sequences.

    It is the optimum of the bound of uniform-state diffusion (arXiv 2412.10193), and depends on time. Without
    `leave_one_out` it is the full posterior p(x^i | z_t), which counts the evidence of position i twice and is not.
    """
    sequences = jnp.asarray(language.sequences)
    onehot = jax.nn.one_hot(sequences, language.vocabulary)

    def denoise(noisy: Tokens, time: Times) -> Logits:
        level = jnp.maximum(process.schedule.masked(time), LOWEST)[:, None, None]
        same = noisy[:, None, :] == sequences[None]
        evidence = jnp.log(jnp.where(same, process.vocabulary * (1 - level) + level, level))
        total = jnp.sum(evidence, axis=-1, keepdims=True)
        # One matrix of sequences for each position that is left out.
        joint = jnp.log(jnp.asarray(language.table, jnp.float32))[None, :, None] + total
        joint = joint - evidence if leave_one_out else jnp.broadcast_to(joint, evidence.shape)
        weights = jax.nn.softmax(joint, axis=1)
        sums = jnp.einsum("bnl,nlk->blk", weights, onehot, precision=jax.lax.Precision.HIGHEST)
        return jnp.log(jnp.maximum(sums, 1e-37))

    return denoise
