"""Ahead-of-time compilation of the programs of a row, from shapes alone: its training step and its sampler."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, Sharding
from ml_collections import ConfigDict

from diffusion.train.mesh import batch_sharding, replicated
from diffusion.train.population import jit_step
from diffusion.train.state import abstract_state
from diffusion.train.step import make_step
from experiments import families
from experiments.families import Call, System
from experiments.flops import sampling_flops, training_flops


@dataclass(frozen=True)
class Program:
    """One compiled program, with the FLOPs of one execution over all devices, as counted in its trace.

    `executed` includes what rematerialization repeats. `iterations` is the number of passes through the network, which
    has `weights` bytes: micro-batches of a step, or evaluations of a sampler.
    """

    name: str
    compiled: jax.stages.Compiled
    seconds: float
    flops: float
    executed: float
    iterations: int
    weights: float


def programs_of(config: ConfigDict, system: System, mesh: Mesh, helper: ConfigDict | None = None) -> Iterator[Program]:
    """Programs of a row in order: the training step of a trained network, then those of the sampler.

    `helper` is the config of another row's network that takes part in sampling.
    """
    if families.family_of(config).TRAINED:
        yield training_step(config, system, mesh)
    beside = families.system(helper, config.data.vocab_size) if helper else None
    calls = families.family_of(config).calls(config, system, beside)
    for call, flops in zip(calls, sampling_flops(config, config.data.vocab_size, helper), strict=True):
        yield sampling(config, call, flops, mesh)


def with_sharding(tree: Any, sharding: Sharding) -> Any:
    """Shapes with a sharding."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def training_step(config: ConfigDict, system: System, mesh: Mesh) -> Program:
    """Training step of the verb `train`, with objective, optimizer, average, donation and shardings."""
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    settings = families.settings(config)
    state = abstract_state(system.init, optimizer, mesh)
    batch = with_sharding(families.family_of(config).batch(config), batch_sharding(mesh))
    root = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=replicated(mesh))
    step = jit_step(make_step(objective, optimizer, decay=settings.ema, accumulate=settings.accumulate), state, mesh)
    compiled, seconds = compile_for(mesh, step, state, batch, root)
    repeated = ("none", 0), (config.model.remat, config.objective.pieces)
    flops, executed = (training_flops(config, config.data.vocab_size, *each) for each in repeated)
    return Program("training step", compiled, seconds, flops, executed, config.train.accumulate, bytes_of(state.params))


def sampling(config: ConfigDict, call: Call, flops: float, mesh: Mesh) -> Program:
    """One program of a sampler, for one batch."""
    params = tuple(abstract_state(init, families.optimizer(config), mesh).params for init in call.params)
    rows, scalars = with_sharding(call.rows, batch_sharding(mesh)), with_sharding(call.scalars, replicated(mesh))
    function = jax.jit(call.function, out_shardings=batch_sharding(mesh) if call.rows_out else None)
    compiled, seconds = compile_for(mesh, function, *params, *rows, *scalars)
    # Arguments that the program does not read, such as rewards that do not guide, are no arguments of it.
    memory = compiled.memory_analysis()
    weights = min(bytes_of(params), memory.argument_size_in_bytes if memory else float("inf"))
    return Program(call.name, compiled, seconds, flops, flops, call.turns, weights)


def bytes_of(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compile_for(mesh: Mesh, function: jax.stages.Wrapped, *arguments) -> tuple[jax.stages.Compiled, float]:
    """Lower and compile; raises ValueError with the compiler's figures if the memory of a device is insufficient."""
    begin = time.time()
    with jax.set_mesh(mesh):
        lowered = function.lower(*arguments)
        try:
            return lowered.compile(), time.time() - begin
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ValueError(memory_error(str(error))) from None


def memory_error(message: str) -> str:
    """Error text in one line: the figures of the compiler and the remedy."""
    part = re.search(r"required for ([\w ]+) \(([\d.]+\w)\) exceeds available (\w+) \(([\d.]+\w)\)", message)
    whole = re.search(r"Used ([\d.]+\w) of ([\d.]+\w) (\w+)", message)
    if part:
        reason = f"{part[1]} need {part[2]} of the {part[4]} of {part[3]} that a device has"
    elif whole:
        reason = f"the program needs {whole[1]} of the {whole[2]} of {whole[3]} that a device has"
    else:
        reason = " ".join(message.split())[:200]
    return (
        f"memory: does not fit, by the compiler {reason}; set model.remat=full, a larger train.accumulate or "
        "mesh.fsdp, or a smaller train.batch or sample.batch"
    )
