"""AdamW and Muon with warm-up and clipping, whose hyperparameters are arrays in the optimizer state.

A sweep over learning rates therefore uses one compiled step, in which the rate is not a constant.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Decay = Literal["constant", "cosine", "inverse_sqrt"]
RMS = 0.2  # of the updates of AdamW, by which those of Muon are scaled (arXiv 2502.16982)
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


def direction_of(params) -> dict:
    """Return the rule of each leaf: "muon" for kernels of blocks, which are stacked matrices, "adam" for all others.

    Raises:
      ValueError: if no leaf is the kernel of a block.
    """

    def rule(path, leaf) -> str:
        name = jax.tree_util.keystr(path)
        return "muon" if "blocks" in name and "kernel" in name and leaf.ndim == 3 else "adam"

    rules = jax.tree_util.tree_map_with_path(rule, params)
    if "muon" not in jax.tree.leaves(rules):
        raise ValueError("optimizer.blocks: muon is for networks of transformer blocks; set it to adam")
    return rules


def scale_by_muon(beta: float) -> optax.GradientTransformation:
    """Return Muon's direction for stacked matrices [N, m, n], scaled to the size of an update of Adam.

    The direction is 0.2 sqrt(max(m, n)) times the orthogonalized momentum, so that learning rate and weight decay are
    those of AdamW (arXiv 2502.16982, section 2.2).
    """

    def axes(params):
        return jax.tree.map(lambda _: optax.contrib.MuonDimensionNumbers(1, 2), params)

    def scaled(update):
        return RMS * math.sqrt(max(update.shape[1:])) * update

    size = optax.stateless(lambda updates, params: jax.tree.map(scaled, updates))
    return optax.chain(optax.contrib.scale_by_muon(beta=beta, weight_dimension_numbers=axes), size)


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
    blocks: Literal["adam", "muon"] = "adam",
    momentum: float = 0.95,
) -> optax.GradientTransformation:
    """Return AdamW with clipping by the global norm; defaults are those of MDLM (arXiv 2406.07524).

    Weight decay acts on matrices, or also on biases and the scales of norms (`decayed`), as PyTorch's does by default.
    With `blocks="muon"` the kernels of stacked blocks move in Muon's direction, of this `momentum`.
    """
    mask = is_matrix if decayed == "matrices" else None

    def chain(peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip):
        numbers = dict(peak=peak, warmup=warmup, steps=steps, floor=floor)
        # A constant: as an array it would be new to the states of earlier checkpoints.
        rate = functools.partial(learning_rate, decay=decay, warmup_first=warmup_first, **numbers)
        adam = optax.scale_by_adam(beta1, beta2, epsilon)
        return optax.chain(
            optax.clip_by_global_norm(clip),
            optax.partition({"adam": adam, "muon": scale_by_muon(momentum)}, direction_of)
            if blocks == "muon"
            else adam,
            optax.add_decayed_weights(weight_decay, mask),
            optax.scale_by_learning_rate(rate),  # pyright: ignore[reportArgumentType]  (its steps are integers)
        )

    numbers = peak, warmup, steps, floor, beta1, beta2, epsilon, weight_decay, clip
    return optax.inject_hyperparams(chain)(*map(float, numbers))
