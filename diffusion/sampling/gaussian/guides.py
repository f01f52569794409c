"""Guides of Gaussian sampling: each turns one prediction of the clean data into another, in x_0-space."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion.processes.gaussian import Data
from diffusion.sampling.gaussian.sampler import Guide, Predict
from diffusion.types import Number

# The reward of clean data, in the space of the diffusion (a latent is decoded inside).
Reward = Callable[[Data], Float[Array, " B"]]


def classifier_free(null: Any, scale: float, apart: bool = False) -> Guide:
    """x_0 <- x_0(null) + scale (x_0(condition) - x_0(null)), in one call of the network or `apart` (arXiv 2207.12598).

    Since x_0 is affine in every parameterization this is the rule for epsilon. `null` is the condition of one example
    that says nothing; the carry is the condition itself.
    """

    def guide(predict: Predict) -> Predict:
        def guided(x, row, carry):
            blank = jax.tree.map(lambda leaf, like: jnp.broadcast_to(leaf[None], like.shape), null, carry)
            if apart:
                without, told = predict(x, row, blank)[0], predict(x, row, carry)[0]
                return without + scale * (told - without), carry
            both = jax.tree.map(lambda *parts: jnp.concatenate(parts), blank, carry)
            clean, _ = predict(jnp.concatenate([x, x]), row, both)
            without, told = jnp.split(clean, 2)
            return without + scale * (told - without), carry

        return guided

    return guide


def reward_gradient(reward: Reward, scale: Number) -> Guide:
    """Universal guidance: x_0 <- x_0 + scale (sigma^2 / alpha) d r(x_0(x)) / dx (arXiv 2302.07121).

    That is epsilon - scale sigma gradient, through the network and what guided it before; where the grid says so.
    """

    def guide(predict: Predict) -> Predict:
        def guided(x, row, carry):
            def value(x):
                clean, after = predict(x, row, carry)
                return jnp.sum(reward(clean)), (clean, after)

            def push():
                (_, (clean, after)), gradient = jax.value_and_grad(value, has_aux=True)(x)
                return clean + scale * row.sigma**2 / row.alpha * gradient, after

            return jax.lax.cond(row.guided, push, lambda: predict(x, row, carry))

        return guided

    return guide


def condition_ascent(reward: Reward, rate: Number) -> Guide:
    """DATE: the condition itself climbs, e <- e + rate g / ||g|| with g = d r(x_0(x, e)) / de; then predict anew.

    One step of each example's own condition wherever the grid says so; it keeps what it has climbed. The carry is the
    condition, arrays of real numbers (embeddings). Source of the rule: the specification of LiDAR's baselines (4.3).
    """

    def guide(predict: Predict) -> Predict:
        def guided(x, row, carry):
            def climb():
                gradient = jax.grad(lambda told: jnp.sum(reward(predict(x, row, told)[0])))(carry)
                return jax.tree.map(lambda told, slope: told + rate * unit(slope), carry, gradient)

            carry = jax.lax.cond(row.guided, climb, lambda: carry)
            return predict(x, row, carry)

        return guided

    return guide


def unit(x: Data) -> Data:
    """Each example scaled to norm 1; zeros stay."""
    axes = tuple(range(1, x.ndim))
    square = jnp.sum(x**2, axis=axes, keepdims=True)
    return jnp.where(square > 0, x * jax.lax.rsqrt(jnp.maximum(square, 1e-30)), 0.0)


def clamp(nearest: Callable[[Data], Data]) -> Guide:
    """x_0 <- the nearest allowed point, as the nearest embedding (Diffusion-LM's clamping); where the grid says."""

    def guide(predict: Predict) -> Predict:
        def guided(x, row, carry):
            clean, carry = predict(x, row, carry)
            return jnp.where(row.guided, nearest(clean), clean), carry

        return guided

    return guide


def keep(known: Data, given: Bool[Array, "B ..."]) -> Guide:
    """x_0 <- what is known, wherever it is given: the sampler's own steps then put its noise on it."""

    def guide(predict: Predict) -> Predict:
        def guided(x, row, carry):
            clean, carry = predict(x, row, carry)
            return jnp.where(given, known, clean), carry

        return guided

    return guide
