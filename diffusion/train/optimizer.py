"""AdamW with warm-up and clipping, whose hyperparameters are arrays in the optimizer state.

A sweep over learning rates therefore uses one compiled step, in which the rate is not a constant.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Decay = Literal["constant", "cosine", "inverse_sqrt"]
Rate = float | Float[Array, ""]


def learning_rate(
    step: Int[Array, ""],
    peak: Rate,
    warmup: Rate,
    steps: Rate,
    floor: Rate,
    decay: Decay,
) -> Float[Array, ""]:
    """Return a linear warm-up to `peak`, then a constant, a cosine to `floor * peak` at `steps`, or 1 / sqrt(step)."""
    ramp = jnp.minimum(1.0, (step + 1) / jnp.maximum(warmup, 1))
    progress = jnp.clip((step - warmup) / jnp.maximum(steps - warmup, 1), 0, 1)
    shape = {
        "constant": 1.0,
        "cosine": floor + (1 - floor) * 0.5 * (1 + jnp.cos(jnp.pi * progress)),
        "inverse_sqrt": jnp.sqrt(jnp.maximum(warmup, 1) / jnp.maximum(step + 1, jnp.maximum(warmup, 1))),
    }[decay]
    return peak * ramp * shape


def is_matrix(params) -> dict:
    """Return the mask of weight decay: kernels and tables, but not biases and scales."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: any(word in jax.tree_util.keystr(path) for word in ("kernel", "embedding")), params
    )


def adamw(
    *,
    peak: float,
    warmup: int,
    steps: int,
    decay: Decay = "constant",
    floor: float = 0.0,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """Return AdamW with clipping by the global norm; defaults are those of MDLM (arXiv 2406.07524)."""

    def chain(peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip):
        rate = functools.partial(learning_rate, peak=peak, warmup=warmup, steps=steps, floor=floor, decay=decay)
        return optax.chain(
            optax.clip_by_global_norm(clip),
            optax.scale_by_adam(beta1, beta2, epsilon),
            optax.add_decayed_weights(weight_decay, is_matrix),
            optax.scale_by_learning_rate(rate),  # pyright: ignore[reportArgumentType]  (its steps are integers)
        )

    numbers = peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip
    return optax.inject_hyperparams(chain)(*map(float, numbers))
