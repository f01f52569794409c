"""One optimizer step as a pure function of (state, batch, root key)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from diffusion.rng import Draws, draws
from diffusion.train.state import TrainState, ema_decay
from diffusion.types import Batch, Metrics, Params

Objective = Callable[[Params, Batch, Draws], tuple[Float[Array, ""], Metrics]]
Step = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]


def gradients(
    objective: Objective, params: Params, batch: Batch, noise: Draws, accumulate: int
) -> tuple[Params, Metrics]:
    """Gradient of sum(loss) / sum(count) over the whole batch, in `accumulate` micro-batches.

    Objectives return sums, and noise belongs to examples, so that cutting a batch changes neither the noise nor the
    gradient.
    """
    differentiate = jax.value_and_grad(objective, has_aux=True)
    if accumulate == 1:
        (_, metrics), grads = differentiate(params, batch, noise)
    else:
        # Micro-batch k takes rows k, k + accumulate, ...: on a mesh every device keeps its own rows.
        pieces = jax.tree.map(
            lambda rows: rows.reshape(-1, accumulate, *rows.shape[1:]).swapaxes(0, 1), (dict(batch), noise)
        )

        def add(total, piece):
            (_, metrics), grads = differentiate(params, *piece)
            return jax.tree.map(jnp.add, total, (grads, metrics)), None

        piece = jax.tree.map(lambda rows: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype), pieces)
        _, shapes = jax.eval_shape(objective, params, *piece)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (params, shapes))
        (grads, metrics), _ = jax.lax.scan(add, zeros, pieces)
    count = jnp.maximum(metrics["loss"][1], 1)
    return jax.tree.map(lambda grad: grad / count, grads), metrics


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    decay: float = 0.9999,
    accumulate: int = 1,
) -> Step:
    """Build the step: gradient, AdamW, moving average; metrics gain the gradient's norm."""

    def step(state: TrainState, batch: Batch, root: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        noise = draws(root, "train", state.step, len(batch["tokens"]))
        grads, metrics = gradients(objective, state.params, batch, noise, accumulate)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        keep = ema_decay(decay, state.step)
        # In this form what is frozen stays as it is, to the last bit.
        ema = jax.tree.map(lambda old, new: old + (1 - keep) * (new - old), state.ema, params)
        metrics["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


def non_finite(params: Params) -> str:
    """How many parameter arrays hold a NaN or an infinity, and the first of them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path) for path, leaf in leaves if not bool(jnp.all(jnp.isfinite(leaf)))]
    return f"{len(names)} of {len(leaves)} parameter arrays" + (f" (first: {names[0]})" if names else "")
