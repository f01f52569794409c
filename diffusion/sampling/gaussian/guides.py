"""Guides of Gaussian samplers: each maps a prediction of the clean data x_0 to another prediction."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.sampler import Guide, Predict, guide
from diffusion.types import Number

# The reward of clean data, in the space of the diffusion (a reward of latents decodes them).
Reward = Callable[[Data], Float[Array, " B"]]


def classifier_free(null: Any, scale: float, apart: bool = False) -> Guide:
    """Return classifier-free guidance, x_0 <- x_0(null) + scale (x_0(cond) - x_0(null)) (arXiv 2207.12598).

    Since x_0 is affine in every parameterization, this equals the rule for epsilon. `null` is the null conditioning of
    one example, and the carry is the conditioning. Both predictions are one call of the network, or two with `apart`.
    """

    @guide
    def rule(predict: Predict, x, row, carry):
        nulls = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf[None], like.shape), null, carry)
        if apart:
            unconditional, conditional = predict(x, row, nulls)[0], predict(x, row, carry)[0]
            return unconditional + scale * (conditional - unconditional), carry
        both = jax.tree.map(lambda *parts: jnp.concatenate(parts), nulls, carry)
        clean, _ = predict(jnp.concatenate([x, x]), row, both)
        unconditional, conditional = jnp.split(clean, 2)
        return unconditional + scale * (conditional - unconditional), carry

    return rule


def reward_gradient(reward: Reward, scale: Number) -> Guide:
    """Return universal guidance, x_0 <- x_0 + scale (sigma^2 / alpha) d r(x_0(x)) / dx (arXiv 2302.07121).

    In epsilon this is epsilon - scale sigma d r / dx. The gradient passes through the network and the previous guides.
    The guide acts in the guided steps of the grid.
    """

    @guide
    def rule(predict: Predict, x, row, carry):
        def value(x):
            clean, new_carry = predict(x, row, carry)
            return jnp.sum(reward(clean)), (clean, new_carry)

        def shift():
            (_, (clean, new_carry)), gradient = jax.value_and_grad(value, has_aux=True)(x)
            return clean + scale * row.sigma**2 / row.alpha * gradient, new_carry

        return jax.lax.cond(row.guided, shift, lambda: predict(x, row, carry))

    return rule


def condition_ascent(reward: Reward, rate: Number) -> Guide:
    """Return gradient ascent on the context, e <- e + rate g / ||g|| with g = d r(x_0(x, e)) / de (DATE).

    Each guided step of the grid takes one step of ascent per example, and then predicts with the new context. The carry
    is a named tuple, of which `context`, the embeddings of the prompt, alone changes; it keeps its value between steps.
    The rule is that of a baseline of LiDAR (arXiv 2602.03211).
    """

    @guide
    def rule(predict: Predict, x, row, carry):
        def ascend():
            def value(context):
                return jnp.sum(reward(predict(x, row, carry._replace(context=context))[0]))

            return carry._replace(context=carry.context + rate * normalize(jax.grad(value)(carry.context)))

        carry = jax.lax.cond(row.guided, ascend, lambda: carry)
        return predict(x, row, carry)

    return rule


def normalize(x: Data) -> Data:
    """Scale each example to norm 1; an example of zeros does not change."""
    axes = tuple(range(1, x.ndim))
    square = jnp.sum(x**2, axis=axes, keepdims=True)
    return jnp.where(square > 0, x * jax.lax.rsqrt(jnp.maximum(square, 1e-30)), 0.0)


def clamp(nearest: Callable[[Data], Data]) -> Guide:
    """Return clamping, x_0 <- nearest(x_0), in the guided steps of the grid (Diffusion-LM, arXiv 2205.14217)."""

    @guide
    def rule(predict: Predict, x, row, carry):
        clean, carry = predict(x, row, carry)
        return jnp.where(row.guided, nearest(clean), clean), carry

    return rule


def keep(known: Data, given: Bool[Array, "B ..."]) -> Guide:
    """Return the guide x_0 <- known where `given` is true; the steps of the sampler add the noise of each level."""

    @guide
    def rule(predict: Predict, x, row, carry):
        clean, carry = predict(x, row, carry)
        return jnp.where(given, known, clean), carry

    return rule
