"""The state of training; it has no random key, because every key is derived from the step."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from diffusion.train.mesh import abstract
from diffusion.types import Params


class TrainState(NamedTuple):
    """The step, the parameters, the optimizer state, and the moving average of the parameters."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    ema: Params


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """Return the state before the first step; the moving average starts at the parameters."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.tree.map(jnp.copy, params))


def abstract_state(
    init: Callable[[Key[Array, ""]], Params], optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the shapes, types and shardings of the state, without allocation."""
    return abstract(jax.eval_shape(lambda key: new_state(init(key), optimizer), jax.random.key(0)), mesh)


def init_state(
    init: Callable[[Key[Array, ""]], Params],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
) -> TrainState:
    """Initialize every leaf on its devices.

    The parameters are a program of their own, in which no hyper-parameter of the optimizer is a constant.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(init, optimizer, mesh))
    # The initialization of hundreds of small arrays takes long to compile and runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    params = jax.jit(init, out_shardings=shardings.params, compiler_options=options)(key)
    start = partial(new_state, optimizer=optimizer)
    return jax.jit(start, out_shardings=shardings, donate_argnums=0, compiler_options=options)(params)


def ema_decay(limit: float, step: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the decay of the moving average at step n, min(limit, (1 + n) / (10 + n)) (MDLM, public code)."""
    return jnp.minimum(limit, (1 + step) / (10 + step))
