"""Exact likelihood of short sequences: a sum over all orders of generation, by dynamic programming over subsets.

A masked model reveals its positions in a uniformly random order (the first-hitting sampler), hence

    p(y) = 1 / N! sum over orders o of prod_k p(y_{o_k} | y_{o_1}, ..., y_{o_{k-1}}),

to which `bound_continuous` is a bound by Jensen's inequality (order-agnostic models: ARDM, arXiv 2110.02037). With
g(A) = sum_{j in A} g(A - j) p(y_j | y_{A - j}) over subsets A of positions, the sum over orders is g(all) / N!.
"""

from math import lgamma

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffusion.categorical import EXCLUDED
from diffusion.objectives.reveal import final_level
from diffusion.rng import Draws
from diffusion.schedules.masking import inverse
from diffusion.types import Denoise, LossMask, MaskedProcess, Tokens

# The network is called on 2^N states, whose masses are stored.
MAX_POSITIONS = 12


def nll_any_order(
    denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: LossMask, draws: Draws
) -> Float[Array, " B"]:
    """Compute -log p(x) of the sampler that reveals one position at a time in random order, in nats per sequence.

    The value is exact. Positions are tokens or sub-tokens; those of weight 0 are revealed at no cost. The time of a
    state is the time at which on average as many positions are masked. For a network without time conditioning this
    is the likelihood of the continuous-time process.

    Raises:
      ValueError: for more than 12 positions.
    """
    del draws
    clean = process.encode(tokens)
    size, count = clean.shape
    if count > MAX_POSITIONS:
        raise ValueError(
            f"evaluate.estimator: nll_any_order visits 2^N states, and N = {count} positions are too many (at most "
            f"{MAX_POSITIONS}); use bound_continuous or bound_marginal"
        )
    position_weights = jnp.repeat(weights, count // tokens.shape[1], axis=1)
    members = np.arange(2**count)[:, None] >> np.arange(count) & 1 == 1
    levels = 1 - members[:-1].mean(axis=1)
    times = inverse(process.schedule, jnp.asarray(1 - levels * final_level(process.schedule), jnp.float32))

    def visit(masses, state):
        """Add the contributions of one subset, whose mass is complete, to the subsets with one more position."""
        known, time, number = state
        noisy = jnp.where(known[None], clean, process.mask_id)
        log_prob = process.log_prob(denoise(noisy, jnp.full(size, time)), noisy, clean) * position_weights
        contributions = jnp.where(known[None], EXCLUDED, masses[number][:, None] + log_prob)
        following = number | (1 << jnp.arange(count))
        return masses.at[following].set(jnp.logaddexp(masses[following], contributions.T)), None

    masses = jnp.full((2**count, size), EXCLUDED).at[0].set(0)
    # In this order every subset comes after all of its subsets.
    states = (jnp.asarray(members[:-1]), times, jnp.arange(2**count - 1))
    masses, _ = jax.lax.scan(visit, masses, states)
    return lgamma(count + 1) - masses[-1]
