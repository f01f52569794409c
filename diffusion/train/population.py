"""Several trainings as one program: their states are stacked, and one step trains all of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key, PyTree

from diffusion.partition import MEMBERS
from diffusion.train.mesh import BATCH, batch_sharding, put_batch, put_key, replicated
from diffusion.train.state import TrainState
from diffusion.train.step import Step
from diffusion.types import Params


@dataclass(frozen=True)
class Member:
    """What a training has of its own among those of one program; network, objective and settings are common.

    `optimizer` differs in its hyper-parameters alone, which are in its state. `stream(step)` yields the rows of this
    host from that step on. `start()` returns what replaces the initial parameters. `evaluate(ema)` returns the
    validation loss, by which the best checkpoint is retained. `name` and `config` are for the writers.
    """

    optimizer: optax.GradientTransformation
    stream: Callable[[int], Iterable[dict[str, np.ndarray]]]
    root: Key[Array, ""]
    directory: Path
    start: Callable[[], Params] | None = None
    evaluate: Callable[[Params], float] | None = None
    name: str = "train"
    config: dict | None = None


@dataclass(frozen=True)
class Program:
    """A compiled training step, and how states, keys and batches of its members are brought together and parted.

    `step(state, batch, roots)` donates the state. `join(states)` returns its state, `roots(keys)` its keys,
    `put(rows)` its batch from the rows of every member, `part(state, index)` the state of one member, and
    `split(metrics)` the metrics of every member, of arrays on the host.
    """

    step: jax.stages.Wrapped
    join: Callable[[Iterable[TrainState]], TrainState]
    roots: Callable[[Sequence[Key[Array, ""]]], Array]
    put: Callable[[Sequence[dict[str, np.ndarray]]], dict[str, jax.Array]]
    part: Callable[[TrainState, int], TrainState]
    split: Callable[[PyTree], list[PyTree]]


def jit_step(step: Step, abstract: TrainState, mesh: Mesh) -> jax.stages.Wrapped:
    """Return the training step as one program over the mesh, which donates the memory of the old state."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )


def alone(step: Step, abstract: TrainState, mesh: Mesh) -> Program:
    """Return the program of one training over the mesh."""
    return Program(
        step=jit_step(step, abstract, mesh),
        join=lambda states: next(iter(states)),
        roots=lambda keys: put_key(keys[0], mesh),
        put=lambda rows: put_batch(rows[0], mesh),
        part=lambda state, index: state,
        split=lambda metrics: [metrics],
    )


def together(step: Step, abstract: TrainState, mesh: Mesh, members: int) -> Program:
    """Return the program of several trainings, each of which takes the step that it would take alone.

    Where the data axis of the mesh divides their number, each group of its devices trains a part of the members with
    whole batches, and no device waits for another. Otherwise all devices split the batch of every member.

    Raises:
      ValueError: with several processes, which read parts of a batch.
    """
    if jax.process_count() > 1:
        raise ValueError("population: several trainings as one program are for one process; leave it out")
    apart = members % mesh.shape["data"] == 0
    axis, within = ("data", PartitionSpec("fsdp")) if apart else (None, BATCH)
    shardings = jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec(axis, *leaf.sharding.spec)), abstract)
    batches, each = (NamedSharding(mesh, PartitionSpec(axis, *spec)) for spec in (within, ()))
    mapped = jax.vmap(step, axis_name=MEMBERS)
    if apart:
        spec = PartitionSpec("data")
        mapped = jax.shard_map(
            mapped, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec, axis_names={"data"}, check_vma=False
        )
    first = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    @partial(jax.jit, out_shardings=first)
    def member(state: TrainState, index: Int[Array, ""]) -> TrainState:
        return jax.tree.map(lambda leaf: leaf[index], state)

    @partial(jax.jit, out_shardings=shardings)
    def empty() -> TrainState:
        return jax.tree.map(lambda leaf: jnp.zeros((members, *leaf.shape), leaf.dtype), abstract)

    @partial(jax.jit, out_shardings=shardings, donate_argnums=0)
    def placed(joined: TrainState, state: TrainState, index: Int[Array, ""]) -> TrainState:
        return jax.tree.map(lambda whole, leaf: whole.at[index].set(leaf), joined, state)

    def join(states: Iterable[TrainState]) -> TrainState:
        joined = empty()
        for index, state in enumerate(states):  # one at a time, because each is whole on all devices
            joined = placed(joined, state, jnp.int32(index))
        return joined

    def put(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, jax.Array]:
        return {name: jax.device_put(np.stack([row[name] for row in rows]), batches) for name in rows[0]}

    return Program(
        step=jax.jit(
            mapped, in_shardings=(shardings, batches, each), out_shardings=(shardings, each), donate_argnums=0
        ),
        join=join,
        roots=lambda keys: jax.jit(lambda *keys: jnp.stack(keys), out_shardings=each)(*keys),
        put=put,
        part=lambda state, index: member(state, jnp.int32(index)),
        split=lambda metrics: [jax.tree.map(itemgetter(index), metrics) for index in range(members)],
    )
