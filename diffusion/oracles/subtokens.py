"""Exact posteriors given partially masked tokens, and exact expectations of the losses and bounds of MDM-Prime."""

from itertools import product
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from diffusion.codecs.subtokens import SubtokenCodec
from diffusion.objectives.elbo import Target, masked_nll
from diffusion.oracles.enumerable import Enumerable, finite_logs
from diffusion.processes.subtokens import PartialMaskedDiffusion
from diffusion.types import Denoise, Logits, Symbols, Times


def subtoken_denoiser(language: Enumerable, codec: SubtokenCodec) -> Denoise:
    """The exact denoiser log p(x^i | unmasked sub-tokens), [B, L, C], a sum over the sequences that agree with them.

    It ignores time. Tokens that no such sequence has at a position have no mass; if no sequence agrees, the logits are
    uniform.
    """

    def denoise(noisy: Symbols, time: Times) -> Logits:
        del time
        codes = codec.encode(jnp.asarray(language.sequences)).reshape(len(language.table), -1)
        return finite_logs(language.posterior(noisy, codes, codec.mask_id))

    return denoise


def subtoken_language(language: Enumerable, codec: SubtokenCodec) -> Enumerable:
    """The language of the sub-tokens of a language's sequences, of which `next_token` is the exact causal network."""
    base, positions = codec.base, language.length * codec.digits
    table = np.zeros(base**positions)
    codes = np.asarray(codec.encode(jnp.asarray(language.sequences))).reshape(len(language.table), -1)
    table[codes @ base ** np.arange(positions)[::-1]] = language.table
    return Enumerable(table, base, positions)


def state_sets(positions: int) -> tuple[np.ndarray, np.ndarray]:
    """Enumerate all nonempty sets S of masked positions, [2^N - 1, N], and their weights 1 / (|S| binom(N, |S|)).

    The weight is int_0^1 t^{|S| - 1} (1 - t)^{N - |S|} dt: the factor 1 / t of the bound times the probability of S at
    t.
    """
    sets = np.array(list(product([False, True], repeat=positions)))[1:]
    sizes = sets.sum(axis=1)
    return sets, np.array([1 / (size * comb(positions, size)) for size in sizes])


def expected_nats(
    process: PartialMaskedDiffusion, denoise: Denoise, tokens: Int[np.ndarray, "B L"], target: Target
) -> Float[np.ndarray, " B"]:
    """Sum the marginal bound or the joint cross-entropy of MDM-Prime over all states, in nats per sequence, float64.

    The sum is exact for a denoiser that ignores time and a process that masks sub-tokens independently.
    """
    clean = process.encode(jnp.asarray(tokens))
    sets, weights = state_sets(clean.shape[1])

    @jax.jit
    def nats(hidden):
        noisy = jnp.where(hidden[None], process.mask_id, clean)
        logits = denoise(noisy, jnp.zeros(len(noisy)))
        return masked_nll(process, logits, noisy, clean, jnp.ones(tokens.shape), target)

    terms = (weight * np.asarray(nats(hidden), np.float64) for hidden, weight in zip(sets, weights, strict=True))
    return sum(terms, start=np.zeros(len(clean)))


def expected_steps_nats(
    process: PartialMaskedDiffusion, denoise: Denoise, tokens: Int[np.ndarray, "B L"], levels: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " B"]:
    """Compute the bound of the whole-token sampler with the mask levels l_1 < .. < l_T = 1 exactly, in nats.

    The bound is sum_k E_{S_k, R_k}[sum_i -log p(y^{i, R_k} | y_{S_k})]: each sub-token is in the masked set S_k with
    probability l_k, and each masked one is in the revealed set R_k with probability (l_k - l_{k-1}) / l_k.
    """
    clean = process.encode(jnp.asarray(tokens))
    sets, _ = state_sets(clean.shape[1])
    sizes = sets.sum(axis=1)
    before = np.concatenate([[0.0], levels[:-1]])
    positions = clean.shape[1]

    @jax.jit
    def nats(hidden, revealed):
        noisy = jnp.where(hidden[None], process.mask_id, clean)
        logits = denoise(noisy, jnp.zeros(len(noisy)))
        return -process.token_log_prob(logits, noisy, clean, jnp.broadcast_to(revealed[None], clean.shape)).sum(axis=1)

    total = np.zeros(len(clean))
    for hidden, size in zip(sets, sizes, strict=True):
        for revealed, count in zip(sets, sizes, strict=True):
            if np.all(hidden | ~revealed):
                state_prob = levels**size * (1 - levels) ** (positions - size)
                reveal_prob = (1 - before / levels) ** count * (before / levels) ** (size - count)
                total += np.sum(state_prob * reveal_prob) * np.asarray(nats(hidden, revealed), np.float64)
    return total
