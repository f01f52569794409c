"""The verb `compile`: the training step and the sampler of a row, compiled ahead of time, and what they would cost."""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tabulate import tabulate

from diffusion import build
from diffusion.build.pairs import NET as PAIR_NET
from diffusion.build.translation import translator
from diffusion.nets.attention import choose
from diffusion.report.rows import provenance
from diffusion.train.hardware import Peak, peak
from diffusion.train.loop import jit_step
from diffusion.train.mesh import batch_sharding, check_batch, make_mesh, replicated
from diffusion.train.state import abstract_state
from diffusion.types import Params
from experiments.hlo import KINDS, Traffic, collectives
from experiments.jobs import atomic_write, find_row, resolve

EXAMPLES = "v4:2x2x1, v5e:4x4, v5p:4x4x4, v6e:4x4"
# Chips whose two cores work as one device.
CHIPS = {"v4": "megacore", "v5p": "megachip"}
GIB = 2**30
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


def run(
    module: ModuleType, config: ConfigDict, row: str, topology: str, workdir: Path, overrides: dict | None = None
) -> None:
    """Compile a row's training step and sampler for a TPU slice, or for the devices here, and print what they take.

    Without `row` it is the row that is the config itself, or the first. No data are read: the vocabulary is
    `data.vocab_size`. Fields given on the command line (`overrides`) win over the row's.

    Raises:
      ValueError: for an unknown topology, without libtpu, or with the compiler's reason when memory does not suffice.
    """
    rows = list(module.rows(config))
    chosen = find_row(rows, row) if row else next((each for each in rows if not each["overrides"]), rows[0])
    kept = {name: value for name, value in chosen["overrides"].items() if name not in (overrides or {})}
    config = resolve(config, kept, config.seeds[0])
    devices = slice_devices(topology) if topology else jax.devices()
    if topology:
        # What is compiled for a slice can be written to the persistent cache, but not read back without a TPU.
        jax.config.update("jax_enable_compilation_cache", False)
    mesh = make_mesh(**config.mesh, devices=devices)
    if config.model.attention == "auto":
        # The network would ask the host's backend, which does not run this program.
        config.model.attention = f"auto:{devices[0].platform}"
    system = build.system(config, config.data.vocab_size)
    check_batch(config.train.batch, mesh, config.train.accumulate)
    check_batch(config.sample.batch, mesh, field="sample.batch")
    limit = peak(devices[0].device_kind)
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    facts = {
        "table": f"{config.table}, {config.variant}",
        "row": chosen["name"],
        "topology": topology or "devices here",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "mesh": ", ".join(f"{name} {size}" for name, size in mesh.shape.items()),
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(shapes)):,}",
        "attention": attention(config),
        "remat": config.model.remat,
        "batch": f"{config.train.batch} x {config.data.length} tokens in {config.train.accumulate} micro-batches; "
        f"sampler {config.sample.batch}",
    }
    print(tabulate(facts.items(), disable_numparse=True, tablefmt="plain"), flush=True)
    programs = []
    for make in (training_step, sampler):
        programs.append(make(config, system, mesh))
        print("\n" + tabulate(describe(programs[-1], mesh, limit), disable_numparse=True), flush=True)
    record = {**facts, "programs": [measure(program, mesh, limit) for program in programs], **provenance()}
    slug = "".join(letter if letter.isalnum() else "-" for letter in f"{chosen['name']} {topology or 'here'}".lower())
    path = workdir / "compile" / f"{config.table}.{config.variant}.{slug}.json"
    atomic_write(path, json.dumps(record, indent=1) + "\n")
    print(f"\nfits\nwrote {path}")


def attention(config: ConfigDict) -> str:
    """The kernel by name, where all layers attend over the same length."""
    name, _, platform = config.model.attention.partition(":")
    if name != "auto" or config.model.net != "dit":
        return config.model.attention
    return choose(platform, config.model.dtype, config.data.length)


def slice_devices(topology: str) -> list:
    """The devices of a TPU slice by its name, without a TPU; raises ValueError without libtpu or for unknown names."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from importlib.util import find_spec

    from jax.experimental.topologies import get_topology_desc

    if find_spec("libtpu") is None:
        raise ValueError('topology: libtpu is not installed; pip install "jax[tpu]" (libtpu alone is enough on a CPU)')
    chip = CHIPS.get(topology.partition(":")[0])
    try:
        options = {"chip_config_name": chip} if chip else {}
        return list(get_topology_desc(platform="tpu", topology_name=topology, **options).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"topology: {topology!r} is not a TPU slice ({reason}); examples: {EXAMPLES}") from None


def training_step(config: ConfigDict, system: build.System, mesh: Mesh) -> Program:
    """The step that `train` runs: objective, optimizer, average, donation and shardings included."""
    objective, optimizer, settings = build.objective(config, system), build.optimizer(config), build.settings(config)
    state = abstract_state(system.init, optimizer, mesh)
    shape, rows = (config.train.batch, config.data.length), batch_sharding(mesh)
    batch = {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows),
        "weights": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows),
    }
    if config.objective.name == "classification" or config.model.labels:
        batch["label"] = jax.ShapeDtypeStruct(shape[:1], jnp.int32, sharding=rows)
    if config.model.net == PAIR_NET:
        told = (config.train.batch, config.data.source_length)
        batch["source"] = jax.ShapeDtypeStruct(told, jnp.int32, sharding=rows)
        batch["source_weights"] = jax.ShapeDtypeStruct(told, jnp.float32, sharding=rows)
    root = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=replicated(mesh))
    step = jit_step(objective, optimizer, settings, state, mesh)
    compiled, seconds = compile_for(mesh, step, state, batch, root)
    flops = build.training_flops(config, system)
    recomputed, turns = RECOMPUTED[config.model.remat], config.train.accumulate
    return Program("training step", compiled, seconds, flops, recomputed, turns, bytes_of(state.params))


def sampler(config: ConfigDict, system: build.System, mesh: Mesh) -> Program:
    """The sampler of one batch, with all its steps."""
    params = abstract_state(system.init, build.optimizer(config), mesh).params
    if config.model.net == PAIR_NET:
        return translation(config, system, mesh, params)
    sample = build.sampler(config, system)
    size, length = config.sample.batch, config.sample.length or config.data.length
    keys = jax.ShapeDtypeStruct((size,), jax.random.key(0).dtype, sharding=batch_sharding(mesh))
    prompt = jax.ShapeDtypeStruct((size, length), jnp.int32, sharding=batch_sharding(mesh))
    label = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch_sharding(mesh)) if config.model.labels else None
    compiled, seconds = compile_for(mesh, jax.jit(sample), params, keys, prompt, label)
    token = build.forward_flops(config, system.classes) / config.data.length
    turns, tokens = network_turns(config)
    name = f"sampler, {turns} evaluations"
    flops = size * (token * turns * tokens + build.questions(config, system) * system.error_flops)
    return Program(name, compiled, seconds, flops, 1.0, turns, bytes_of(params))


def translation(config: ConfigDict, system: build.System, mesh: Mesh, params: Params) -> Program:
    """The sampler of a batch of sources, with all candidates of each."""
    made, rows = translator(config, system), batch_sharding(mesh)
    size, told = config.sample.batch, (config.sample.batch, config.data.source_length)
    keys = jax.ShapeDtypeStruct((size,), jax.random.key(0).dtype, sharding=rows)
    source, mask = (jax.ShapeDtypeStruct(told, kind, sharding=rows) for kind in (jnp.int32, jnp.bool_))
    known = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=rows)
    compiled, seconds = compile_for(mesh, jax.jit(made.translate), params, keys, source, mask, known)
    name = f"sampler, {made.evaluations} evaluations, {made.candidates} candidates"
    return Program(name, compiled, seconds, size * made.flops, 1.0, made.evaluations, bytes_of(params))


def bytes_of(tree) -> int:
    """Bytes of all arrays of a tree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def network_turns(config: ConfigDict) -> tuple[int, int]:
    """How often a sampler runs the network for one sequence, and on how many tokens at once."""
    window, total = config.data.length, config.sample.length or config.data.length
    if config.model.causal:
        return total, 1  # its cache holds the rest
    steps = build.sampling_steps(config)
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


def measure(program: Program, mesh: Mesh, limit: Peak | None) -> dict:
    """The numbers of one program: memory and traffic of one device, work of all, and the roofline.

    The traffic to memory is an estimate: arguments read and outputs written once, and at every turn the weights read
    and the temporaries written and read once. The compiler's own count takes a loop's body once, whatever its turns.
    """
    memory = program.compiled.memory_analysis()
    cost = program.compiled.cost_analysis() or {}
    arguments, outputs, temporaries = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    traffic = collectives(program.compiled.as_text())
    values = {
        "program": program.name,
        "arguments": arguments,
        "outputs": outputs,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": temporaries,
        "peak": getattr(memory, "peak_memory_in_bytes", 0),
        "flops": program.flops,
        "flops_executed": program.flops * program.recomputed,
        "flops_cost_analysis": cost.get("flops", 0.0),
        "bytes_estimate": arguments + outputs + program.turns * (program.weights + 2 * temporaries),
        "collectives": {kind: vars(traffic.get(kind, Traffic())) for kind in KINDS},
        "compile_seconds": program.seconds,
    }
    if limit:
        values["seconds"] = {
            "compute": values["flops_executed"] / mesh.size / limit.flops,
            "memory": values["bytes_estimate"] / limit.bandwidth,
            "communication": sum(each.bytes for each in traffic.values()) / limit.link,
        }
    return values


def describe(program: Program, mesh: Mesh, limit: Peak | None) -> list[list[str]]:
    """The same numbers for people."""
    values = measure(program, mesh, limit)
    used = values["arguments"] + values["outputs"] - values["aliased"] + values["temporaries"]
    lines = [[program.name, f"compiled in {program.seconds:.0f} s"]]
    for name in ("arguments", "outputs", "aliased", "temporaries"):
        lines.append([f"{name}, a device", f"{values[name] / GIB:.3f} GiB"])
    lines.append(["in all (arguments + outputs - aliased + temporaries)", f"{used / GIB:.3f} GiB"])
    lines.append(["peak by the compiler's account", f"{values['peak'] / GIB:.3f} GiB"])
    lines.append(["memory of a device", f"{limit.memory / GIB:.0f} GiB" if limit else "no figure for this device"])
    lines.append(["FLOPs, analytic, all devices", f"{values['flops']:.3e}"])
    lines.append(["FLOPs by cost_analysis, a device, loop bodies once", f"{values['flops_cost_analysis']:.3e}"])
    for kind, traffic in values["collectives"].items():
        if traffic["instructions"]:
            text = f"{traffic['instructions']} in the program, {traffic['executions']} executed, "
            lines.append([kind, text + f"{traffic['bytes'] / GIB:.3f} GiB sent a device"])
    if not any(traffic["instructions"] for traffic in values["collectives"].values()):
        lines.append(["collectives", "none"])
    if limit:
        seconds = values["seconds"]
        bound = max(seconds, key=seconds.get)
        at = values["flops"] / mesh.size / limit.flops / seconds[bound]
        lines += [
            [f"compute at {limit.flops / 1e12:.0f} TFLOP/s bf16", f"{1e3 * seconds['compute']:.2f} ms"],
            [f"memory at {limit.bandwidth / 1e9:.0f} GB/s, estimated", f"{1e3 * seconds['memory']:.2f} ms"],
            [f"links at {limit.link / 1e9:.0f} GB/s", f"{1e3 * seconds['communication']:.2f} ms"],
            ["roofline", f"{1e3 * seconds[bound]:.2f} ms, bound by {bound}, {100 * at:.0f} % MFU at most"],
        ]
    return lines
