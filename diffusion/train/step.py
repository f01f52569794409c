"""One training step as a pure function of (state, batch, root key)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key

from diffusion.rng import Draws, draws
from diffusion.train.state import TrainState, ema_decay
from diffusion.types import Batch, Metrics, Params

Objective = Callable[[Params, Batch, Draws], tuple[Float[Array, ""], Metrics]]
Step = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]


def gradients(
    objective: Objective, params: Params, batch: Batch, noise: Draws, accumulate: int
) -> tuple[Params, Metrics]:
    """Return the gradient of sum(loss) / sum(count) over the whole batch, from `accumulate` micro-batches.

    Objectives return sums, and each example has its own noise, so that the number of micro-batches changes neither the
    noise nor the gradient.
    """
    differentiate = jax.value_and_grad(objective, has_aux=True)
    if accumulate == 1:
        (_, metrics), grads = differentiate(params, batch, noise)
    else:
        # Micro-batch k takes rows k, k + accumulate, ..., so that no row moves between devices of a mesh.
        micro_batches = jax.tree.map(
            lambda rows: rows.reshape(-1, accumulate, *rows.shape[1:]).swapaxes(0, 1), (dict(batch), noise)
        )

        def add(total, micro_batch):
            (_, metrics), grads = differentiate(params, *micro_batch)
            return jax.tree.map(jnp.add, total, (grads, metrics)), None

        abstract = jax.tree.map(lambda rows: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype), micro_batches)
        _, shapes = jax.eval_shape(objective, params, *abstract)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (params, shapes))
        (grads, metrics), _ = jax.lax.scan(add, zeros, micro_batches)
    count = jnp.maximum(metrics["loss"][1], 1)
    return jax.tree.map(lambda grad: grad / count, grads), metrics


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    decay: float = 0.9999,
    accumulate: int = 1,
) -> Step:
    """Return the training step: gradient, optimizer and moving average, with the gradient norm as a metric."""

    def step(state: TrainState, batch: Batch, root: Key[Array, ""]) -> tuple[TrainState, Metrics]:
        noise = draws(root, "train", state.step, len(batch["tokens"]))
        grads, metrics = gradients(objective, state.params, batch, noise, accumulate)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        current_decay = ema_decay(decay, state.step)
        # In this form the average of frozen parameters is bitwise constant.
        ema = jax.tree.map(lambda old, new: old + (1 - current_decay) * (new - old), state.ema, params)
        metrics["gradient_norm"] = (optax.tree.norm(grads), jnp.ones(()))
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    return step


@jax.jit
def all_finite(tree: Params) -> Bool[Array, ""]:
    """Return whether all elements of all arrays are finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def non_finite(params: Params) -> str:
    """Return a description of the parameter arrays with a NaN or an infinity: their number, and the first of them."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [jax.tree_util.keystr(path) for path, leaf in leaves if not bool(jnp.all(jnp.isfinite(leaf)))]
    return f"{len(names)} of {len(leaves)} parameter arrays" + (f" (first: {names[0]})" if names else "")
