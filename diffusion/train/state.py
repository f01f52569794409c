"""What training carries from step to step. There is no key in it: every key is derived from the step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from diffusion.train.mesh import state_shardings
from diffusion.types import Params


class TrainState(NamedTuple):
    """A step counter and three trees of parameters' shape."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    ema: Params


def new_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step; the average starts at the parameters."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.tree.map(jnp.copy, params))


def abstract_state(
    init: Callable[[Key[Array, ""]], Params], optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shapes, types and shardings of the state, without allocating it."""
    shapes = jax.eval_shape(lambda key: new_state(init(key), optimizer), jax.random.key(0))
    shardings = state_shardings(shapes, mesh)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
    )


def init_state(
    init: Callable[[Key[Array, ""]], Params],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
) -> TrainState:
    """Initialize every leaf on the devices where it will live; optimizer moments do not follow by themselves."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(init, optimizer, mesh))
    # Drawing hundreds of small arrays compiles for long and runs once.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(lambda key: new_state(init(key), optimizer), out_shardings=shardings, compiler_options=options)(key)


def ema_decay(limit: float, step: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """min(limit, (1 + n) / (10 + n)): the average forgets its start quickly, then slowly (MDLM)."""
    return jnp.minimum(limit, (1 + step) / (10 + step))
