"""Exact denoisers of small languages and of Markov chains under uniform noise."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion.oracles.enumerable import Enumerable
from diffusion.oracles.markov import Markov
from diffusion.processes.uniform import LOWEST, UniformDiffusion
from diffusion.types import Denoise, Logits, Times, Tokens


def uniform_posterior(
    language: Enumerable | Markov, process: UniformDiffusion, *, leave_one_out: bool = True
) -> Denoise:
    """The leave-one-out posterior log p(x^i | z_t^{-i}) as a denoiser, [B, L, K].

    It is the optimum of the bound of uniform-state diffusion (arXiv 2412.10193), and depends on time. Without
    `leave_one_out` it is the full posterior p(x^i | z_t), which counts the evidence of position i twice and is not.
    """

    def denoise(noisy: Tokens, time: Times) -> Logits:
        level = jnp.maximum(process.schedule.masked(time), LOWEST)[:, None, None]
        # K times the probability of the noisy token given each clean one.
        evidence = process.vocabulary * (1 - level) * process.one_hot(noisy) + level
        weights = enumerated(language, evidence) if isinstance(language, Enumerable) else chained(language, evidence)
        return jnp.log(jnp.maximum(weights if leave_one_out else weights * evidence, 1e-37))

    return denoise


def enumerated(language: Enumerable, evidence: Float[Array, "B L K"]) -> Float[Array, "B L K"]:
    """Sum the probabilities of all sequences given the evidence of all other positions, normalized."""
    sequences = jnp.asarray(language.sequences)
    logs = jnp.take_along_axis(jnp.log(evidence)[:, None], sequences[None, ..., None], axis=-1)[..., 0]
    # One distribution over sequences for each position that is left out.
    joint = jnp.log(jnp.asarray(language.table, jnp.float32))[None, :, None] + logs.sum(-1, keepdims=True) - logs
    onehot = jax.nn.one_hot(sequences, language.vocabulary)
    return jnp.einsum("bnl,nlk->blk", jax.nn.softmax(joint, axis=1), onehot, precision=jax.lax.Precision.HIGHEST)


def chained(language: Markov, evidence: Float[Array, "B L K"]) -> Float[Array, "B L K"]:
    """Multiply the forward and backward messages to every position, without its own evidence, normalized."""
    transition = jnp.asarray(language.transition, jnp.float32)
    size, _, vocabulary = evidence.shape

    def messages(start: Float[Array, "B K"], matrix: Float[Array, "K K"], reverse: bool) -> Float[Array, "L B K"]:
        def step(message, evidence):
            after = jnp.matmul(message * evidence, matrix, precision=jax.lax.Precision.HIGHEST)
            return after / after.sum(axis=-1, keepdims=True), message

        return jax.lax.scan(step, start, jnp.swapaxes(evidence, 0, 1), reverse=reverse)[1]

    first = jnp.broadcast_to(jnp.asarray(language.initial, jnp.float32)[None], (size, vocabulary))
    both = messages(first, transition, False) * messages(jnp.ones_like(first), transition.T, True)
    weights = jnp.swapaxes(both, 0, 1)
    return weights / weights.sum(axis=-1, keepdims=True)
