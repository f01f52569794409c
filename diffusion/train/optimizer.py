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
    warmup_first: Rate = 1.0,
) -> Float[Array, ""]:
    """Return a linear warm-up to `peak`, then a constant, a cosine to `floor * peak` at `steps`, or 1 / sqrt(step).

    Step n of the warm-up, from 0, has the rate peak (n + warmup_first) / warmup; public codes begin at 0.
    """
    ramp = jnp.where(warmup > 0, jnp.minimum(1.0, (step + warmup_first) / jnp.maximum(warmup, 1)), 1.0)
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
    warmup_first: float = 1.0,
    decayed: Literal["matrices", "all"] = "matrices",
) -> optax.GradientTransformation:
    """Return AdamW with clipping by the global norm; defaults are those of MDLM (arXiv 2406.07524).

    Weight decay acts on matrices, or also on biases and the scales of norms (`decayed`), as PyTorch's does by default.
    """
    mask = is_matrix if decayed == "matrices" else None

    def chain(peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip):
        numbers = dict(peak=peak, warmup=warmup, steps=steps, floor=floor)
        # A constant: as an array it would be new to the states of earlier checkpoints.
        rate = functools.partial(learning_rate, decay=decay, warmup_first=warmup_first, **numbers)
        return optax.chain(
            optax.clip_by_global_norm(clip),
            optax.scale_by_adam(beta1, beta2, epsilon),
            optax.add_decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(rate),  # pyright: ignore[reportArgumentType]  (its steps are integers)
        )

    numbers = peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip
    return optax.inject_hyperparams(chain)(*map(float, numbers))
