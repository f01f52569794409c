"""Exact likelihood of few positions: the mean over all orders of revealing them, by dynamic programming over subsets.

A masked model reveals its positions in a uniformly random order (the first-hitting sampler), hence

    p(y) = 1 / N! sum over orders prod_k p(y_{o_k} | y_{o_1}, ..., y_{o_{k-1}}),

the number that `bound_continuous` bounds by Jensen's inequality (order-agnostic models: ARDM, arXiv 2110.02037). The
sum over orders needs no list of orders: with g(A) = sum_{j in A} g(A - j) p(y_j | y_{A - j}) it is g(all) / N!.
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
from diffusion.types import Denoise, MaskedProcess, Tokens

# 2^N states are kept, and the network is called on each.
MOST_POSITIONS = 12


def nll_any_order(
    denoise: Denoise, process: MaskedProcess, tokens: Tokens, weights: Float[Array, "B L"], draws: Draws
) -> Float[Array, " B"]:
    """-log p(x) of the sampler that reveals one position (one digit) at a time in random order: exact, in nats.

    A network that reads time is told when as many positions are masked on average, as such a sampler may do; it is
    the likelihood of the continuous-time process for a network that does not. Positions of weight 0 are given freely.

    Raises:
      ValueError: for more than 12 positions.
    """
    del draws
    clean = process.encode(tokens)
    size, count = clean.shape
    if count > MOST_POSITIONS:
        raise ValueError(
            f"evaluate.estimator: nll_any_order visits 2^N states, and N = {count} positions are too many (at most "
            f"{MOST_POSITIONS}); use bound_continuous or bound_marginal"
        )
    free = jnp.repeat(weights, count // tokens.shape[1], axis=1)
    members = np.arange(2**count)[:, None] >> np.arange(count) & 1 == 1
    levels = 1 - members[:-1].mean(axis=1)
    times = inverse(process.schedule, jnp.asarray(1 - levels * final_level(process.schedule), jnp.float32))

    def visit(masses, state):
        """Add what leads from one subset to those with one position more; its own mass is complete by then."""
        known, time, number = state
        noisy = jnp.where(known[None], clean, process.mask_id)
        log_prob = process.log_prob(denoise(noisy, jnp.full(size, time)), noisy, clean) * free
        added = jnp.where(known[None], EXCLUDED, masses[number][:, None] + log_prob)
        following = number | (1 << jnp.arange(count))
        return masses.at[following].set(jnp.logaddexp(masses[following], added.T)), None

    masses = jnp.full((2**count, size), EXCLUDED).at[0].set(0)
    # In counting order every subset comes after its own subsets.
    states = (jnp.asarray(members[:-1]), times, jnp.arange(2**count - 1))
    masses, _ = jax.lax.scan(visit, masses, states)
    return lgamma(count + 1) - masses[-1]
