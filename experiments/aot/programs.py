"""The programs of a row, compiled ahead of time from shapes alone: its training step and its sampler."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from diffusion.glyphs.prompts import PROMPT_LENGTH
from diffusion.sampling.gaussian.lidar import Lookahead
from diffusion.train.loop import jit_step
from diffusion.train.mesh import batch_sharding, replicated
from diffusion.train.state import abstract_state
from diffusion.types import Params
from experiments import families
from experiments.families.guidance import calls, method
from experiments.families.seq2seq import NET as PAIR_NET
from experiments.families.seq2seq import has_sources
from experiments.families.text_to_image import EXACT
from experiments.families.translation import translator
from experiments.tasks.prompted_models import learned_reward, nearest_worth

# Forward passes that a training step runs in all, for three that count: "full" recomputes every block once.
RECOMPUTED = {"none": 1.0, "dots": 1.0, "full": 4 / 3}


@dataclass(frozen=True)
class Program:
    """One compiled program and the analytic work of one execution, over all devices.

    `turns` is how often the network, of `weights` bytes, is passed through: micro-batches of a step, evaluations of a
    sampler.
    """

    name: str
    compiled: jax.stages.Compiled
    seconds: float
    flops: float
    recomputed: float
    turns: int
    weights: float


def programs_of(
    config: ConfigDict, system: families.System, mesh: Mesh, judge: families.System | None = None
) -> Iterator[Program]:
    """What a row runs, one after the other: its training step where it has a network, its sampler where it samples."""
    net = config.model.net
    if net not in EXACT:
        yield training_step(config, system, mesh)
    if net in ("captioned_unet", "picture_oracle"):
        yield from pictures(config, system, mesh, judge)
    elif net == PAIR_NET and has_sources(config):
        yield translation(config, system, mesh)
    elif net != "reward":
        yield sampler(config, system, mesh)


def training_step(config: ConfigDict, system: families.System, mesh: Mesh) -> Program:
    """The step that `train` runs: objective, optimizer, average, donation and shardings included."""
    objective, optimizer = families.objective(config, system), families.optimizer(config)
    settings = families.settings(config)
    state = abstract_state(system.init, optimizer, mesh)
    shape, rows = (config.train.batch, config.data.length), batch_sharding(mesh)
    batch = {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows),
        "weights": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows),
    }
    if config.objective.name == "classification" or config.model.labels:
        batch["label"] = jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=rows)
    if config.model.net in ("captioned_unet", "reward"):
        batch["prompt"] = jax.ShapeDtypeStruct((config.train.batch, PROMPT_LENGTH), jnp.int32, sharding=rows)
    if config.model.net == "reward":
        batch["score"] = jax.ShapeDtypeStruct(shape[:1], jnp.float32, sharding=rows)
    if config.model.net == PAIR_NET and has_sources(config):
        told = (config.train.batch, config.data.source_length)
        batch["source"] = jax.ShapeDtypeStruct(told, jnp.int32, sharding=rows)
        batch["source_weights"] = jax.ShapeDtypeStruct(told, jnp.float32, sharding=rows)
    root = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=replicated(mesh))
    step = jit_step(objective, optimizer, settings, state, mesh)
    compiled, seconds = compile_for(mesh, step, state, batch, root)
    flops = families.training_flops(config, system)
    recomputed, turns = RECOMPUTED[config.model.remat], config.train.accumulate
    return Program("training step", compiled, seconds, flops, recomputed, turns, bytes_of(state.params))


def sampler(config: ConfigDict, system: families.System, mesh: Mesh) -> Program:
    """The sampler of one batch, with all its steps."""
    params = abstract_state(system.init, families.optimizer(config), mesh).params
    sample = families.sampler(config, system)
    size, length = config.sample.batch, config.sample.length or config.data.length
    keys = jax.ShapeDtypeStruct((size,), jax.random.key(0).dtype, sharding=batch_sharding(mesh))
    prompt = jax.ShapeDtypeStruct((size, length), jnp.int32, sharding=batch_sharding(mesh))
    label = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch_sharding(mesh)) if config.model.labels else None
    compiled, seconds = compile_for(mesh, jax.jit(sample), params, keys, prompt, label)
    token = families.forward_flops(config, system.classes) / config.data.length
    turns, tokens = network_turns(config)
    name = f"sampler, {turns} evaluations"
    flops = size * (token * turns * tokens + families.questions(config, system) * system.error_flops)
    return Program(name, compiled, seconds, flops, 1.0, turns, bytes_of(params))


def translation(config: ConfigDict, system: families.System, mesh: Mesh) -> Program:
    """The sampler of a batch of sources, with all candidates of each."""
    params = abstract_state(system.init, families.optimizer(config), mesh).params
    made, rows = translator(config, system), batch_sharding(mesh)
    size, told = config.sample.batch, (config.sample.batch, config.data.source_length)
    keys = jax.ShapeDtypeStruct((size,), jax.random.key(0).dtype, sharding=rows)
    source, mask = (jax.ShapeDtypeStruct(told, kind, sharding=rows) for kind in (jnp.int32, jnp.bool_))
    known = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=rows)
    compiled, seconds = compile_for(mesh, jax.jit(made.translate), params, keys, source, mask, known)
    name = f"sampler, {made.evaluations} evaluations, {made.candidates} candidates"
    return Program(name, compiled, seconds, size * made.flops, 1.0, made.evaluations, bytes_of(params))


def pictures(config: ConfigDict, system: families.System, mesh: Mesh, judge: families.System | None) -> list[Program]:
    """The sampler of a batch of prompts with all pictures of each, and before it the one that looks ahead, if any.

    `judge` is the system of the reward; without one it is that of exact models.
    """
    size, options, rows = config.sample.batch, config.sample.gaussian, batch_sharding(mesh)

    def given(*shape: int, kind: object = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), kind, sharding=rows)

    def frozen(one: families.System) -> Params:
        return abstract_state(one.init, families.optimizer(config), mesh).params

    key, length = jax.random.key(0).dtype, config.data.length
    if judge is None:
        params, reward_params, reward = {}, {}, nearest_worth
        told = (given(options.pool, length), given(options.pool), given(kind=jnp.int32))
    else:
        params, reward_params, reward = frozen(system), frozen(judge), learned_reward(judge)
        told = given(PROMPT_LENGTH, kind=jnp.int32)
    made, flops, programs = method(config, system, reward), families.forward_flops(config, system.classes), []
    ahead, looking = None, made.particles * options.lookahead.steps * calls(config)
    if made.look:
        ahead = Lookahead._make((given(made.particles, length), given(made.particles)))
        look = jax.jit(made.look, out_shardings=rows)
        compiled, seconds = compile_for(mesh, look, params, given(made.particles, kind=key), told)
        name, turns = f"lookahead, {made.particles} x {options.lookahead.steps} steps", options.lookahead.steps
        programs.append(Program(name, compiled, seconds, size * looking * flops, 1.0, turns, bytes_of(params)))
    forces = {name: jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh)) for name in made.forces}
    inputs = (params, reward_params, given(made.draws, kind=key), told, ahead, forces)
    compiled, seconds = compile_for(mesh, jax.jit(made.draw, out_shardings=rows), *inputs)
    # A backward pass takes twice what a forward pass does.
    work = size * (made.cost.evaluations - looking + 2 * made.cost.backward) * flops
    name, turns = f"sampler by {options.method}, {config.sample.steps} steps", config.sample.steps
    return [*programs, Program(name, compiled, seconds, work, 1.0, turns, bytes_of((params, reward_params)))]


def bytes_of(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def network_turns(config: ConfigDict) -> tuple[int, int]:
    """How often a sampler runs the network for one sequence, and on how many tokens at once."""
    window, total = config.data.length, config.sample.length or config.data.length
    if config.model.causal:
        return total, 1  # its cache holds the rest
    steps = families.sampling_steps(config)
    steps += config.sample.policy != "first_hitting" and config.sample.final != "none"
    windows = 1 + -(-(total - window) // (config.sample.stride or window // 2))
    return windows * steps, window


def compile_for(mesh: Mesh, function: jax.stages.Wrapped, *arguments) -> tuple[jax.stages.Compiled, float]:
    """Lower and compile; raises ValueError with the compiler's figures when the device's memory does not suffice."""
    begin = time.time()
    with jax.set_mesh(mesh):
        lowered = function.lower(*arguments)
        try:
            return lowered.compile(), time.time() - begin
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise ValueError(refusal(str(error))) from None


def refusal(message: str) -> str:
    """One line of the compiler's own figures, and what to do."""
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
