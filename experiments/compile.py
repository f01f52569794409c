"""The verb `compile`: ahead-of-time compilation of a row's training step and sampler, and their cost."""

import json
import os
import re
from pathlib import Path
from types import ModuleType

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tabulate import tabulate

from diffusion.report.rows import provenance
from diffusion.storage import atomic_write
from diffusion.train.hardware import Peak, peak
from diffusion.train.mesh import check_batch, make_mesh
from experiments import families
from experiments.aot.hlo import BETWEEN, KINDS, Traffic, collectives
from experiments.aot.programs import Program, programs_of
from experiments.checks import check_fields, check_planner
from experiments.identity import to_json
from experiments.plan import check_seeds, find_row, resolve, trains, without

EXAMPLES = "v4:2x2x1, v5e:4x4, v5p:4x4x4, v6e:4x4; two slices: 2xv5e:4x4"
SLICES = re.compile(r"(?:([1-9]\d*)x)?(v\w+:[\dx]+)")
# Chips whose two cores work as one device.
CHIPS = {"v4": "megacore", "v5p": "megachip"}
GIB = 2**30


def run(
    module: ModuleType, config: ConfigDict, row: str, topology: str, workdir: Path, overrides: dict | None = None
) -> None:
    """Compile a row's training step and sampler for a TPU slice, or for the local devices, and print their cost.

    The default row is the one without overrides, or the first with a network. No data are read: the vocabulary size is
    `data.vocab_size`. The fields of the command line (`overrides`) replace those of the row. Large programs compile in
    a twentieth of the time with JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 in the environment (effort -1).

    Raises:
      ValueError: for an unknown topology or row, without libtpu, or with the compiler's reason for insufficient memory.
    """
    check_seeds(config)
    row = row or default_row(list(module.rows(config)), config)
    rows = [each | {"overrides": without(each["overrides"], overrides or {})} for each in module.rows(config)]
    selected = find_row(rows, row)
    table, config = config, resolve(config, selected["overrides"], config.seeds[0])
    devices = slice_devices(topology) if topology else jax.devices()
    if topology:
        # Programs for a slice can be written to the persistent cache, but not read from it without a TPU.
        jax.config.update("jax_enable_compilation_cache", False)
    mesh = make_mesh(**config.mesh, devices=devices)
    helper = helper_config(rows, table, config)
    for each in (config, helper) if helper else (config,):
        check_fields(to_json(each))
        if each.model.attention == "auto":
            # The network would query the host's backend, which does not run this program.
            each.model.attention = f"auto:{devices[0].platform}"
    system = families.system(config, config.data.vocab_size)
    trained = families.family_of(config).TRAINED
    if trained:
        check_batch(config.train.batch, mesh, config.train.accumulate)
    check_batch(config.sample.batch, mesh, field="sample.batch")
    limit = peak(devices[0].device_kind)
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    steps = f"{config.train.batch} x {config.data.length} tokens in {config.train.accumulate} micro-batches; "
    facts = {
        "table": f"{config.table}, {config.variant}",
        "row": selected["name"],
        "topology": topology or "devices here",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "mesh": ", ".join(f"{name} {size}" for name, size in mesh.shape.items()),
        "parameters": f"{sum(leaf.size for leaf in jax.tree.leaves(shapes)):,}",
        "attention": families.attention(config),
        "remat": config.model.remat,
        "effort": f"{jax.config.values['jax_exec_time_optimization_effort']:g}",
        "batch": (steps if trained else "") + f"sampler {config.sample.batch}",
    }
    print(tabulate(facts.items(), disable_numparse=True, tablefmt="plain"), flush=True)
    programs = []
    for program in programs_of(config, system, mesh, helper):
        programs.append(program)
        print("\n" + tabulate(describe(program, mesh, limit), disable_numparse=True), flush=True)
    record = {**facts, "programs": [measure(program, mesh, limit) for program in programs], **provenance()}
    path = record_path(workdir, config.table, config.variant, selected["name"], topology)
    atomic_write(path, json.dumps(record, indent=1) + "\n")
    print(f"\nfits\nwrote {path}")


def record_path(workdir: Path, table: str, variant: str, row: str, topology: str) -> Path:
    """File of the record of a row."""
    slug = "".join(letter if letter.isalnum() else "-" for letter in f"{row} {topology or 'here'}".lower())
    return workdir / "compile" / f"{table}.{variant}.{slug}.json"


def default_row(rows: list[dict], config: ConfigDict) -> str:
    """Name of the row without overrides, or of the first row with a network, or of the first row."""
    unchanged = (row for row in rows if not row["overrides"])
    networks = (row for row in rows if trains(resolve(config, row["overrides"], config.seeds[0])))
    return (next(unchanged, None) or next(networks, rows[0]))["name"]


def helper_config(rows: list[dict], table: ConfigDict, config: ConfigDict) -> ConfigDict | None:
    """Config of another row whose network takes part in sampling: the reward of images, or the masked planner of P2."""
    if planner := config.sample.remask.planner_row:
        row = find_row(rows, planner, "sample.remask.planner_row")
        resolved = resolve(table, row["overrides"], table.seeds[0])
        check_planner(config, resolved)
        return resolved
    if not families.family_of(config).REWARDED:
        return None
    row = find_row(rows, config.judge.row, "judge.row")
    resolved = resolve(table, row["overrides"], table.seeds[0])
    if not families.is_reward(resolved):
        raise ValueError(f"judge.row: {row['name']!r} is a {resolved.model.net}; name a row that is a reward")
    return resolved


def slice_devices(topology: str) -> list:
    """Devices of a TPU slice by its name, or of several as in 2xv5e:4x4, without a TPU.

    Raises:
      ValueError: without libtpu, or for an unknown name.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from importlib.util import find_spec

    from jax.experimental.topologies import get_topology_desc

    if find_spec("libtpu") is None:
        raise ValueError('topology: libtpu is not installed; pip install "jax[tpu]" (libtpu alone is enough on a CPU)')
    match = SLICES.fullmatch(topology)
    slices, name = match.groups() if match else (None, topology)
    chip = CHIPS.get(name.partition(":")[0])
    try:
        options: dict = {"chip_config_name": chip} if chip else {}
        if set(name.partition(":")[2].split("x")) == {"1"}:
            options["chips_per_host_bounds"] = (1, 1, 1)  # one chip, which is less than a whole host
        if slices:
            options["num_slices"] = int(slices)
        return list(get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"topology: {topology!r} is not a TPU slice ({reason}); examples: {EXAMPLES}") from None


def measure(program: Program, mesh: Mesh, limit: Peak | None) -> dict:
    """Figures of one program: memory and traffic per device, work of all devices, and the roofline.

    The memory traffic is an estimate: arguments are read and outputs written once, and in every iteration the weights
    are read, and the temporaries written and read, once. The compiler counts the body of a loop once.
    """
    memory, text = program.compiled.memory_analysis(), program.compiled.as_text()
    assert memory is not None and text is not None  # CPU, GPU and TPU compilers provide both
    cost = program.compiled.cost_analysis() or {}
    arguments, outputs, temporaries = (
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
    )
    traffic = collectives(text)
    kinds = [*KINDS, *sorted(traffic.keys() - {*KINDS})]
    values = {
        "program": program.name,
        "arguments": arguments,
        "outputs": outputs,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": temporaries,
        "peak": getattr(memory, "peak_memory_in_bytes", 0),
        "flops": program.flops,
        "flops_executed": program.executed,
        "flops_cost_analysis": cost.get("flops", 0.0),
        "weights": program.weights,
        "bytes_estimate": arguments + outputs + program.iterations * (program.weights + 2 * temporaries),
        "collectives": {kind: vars(traffic.get(kind, Traffic())) for kind in kinds},
        "compile_seconds": program.seconds,
    }
    if limit:
        between = sum(each.bytes for kind, each in traffic.items() if kind.endswith(BETWEEN))
        values["seconds"] = {
            "compute": values["flops_executed"] / mesh.size / limit.flops,
            "memory": values["bytes_estimate"] / limit.bandwidth,
            "communication": (sum(each.bytes for each in traffic.values()) - between) / limit.link,
        }
        if between and limit.network:
            values["seconds"]["network"] = between / limit.network
    return values


def describe(program: Program, mesh: Mesh, limit: Peak | None) -> list[list[str]]:
    """Lines of a table with the figures of `measure`."""
    values = measure(program, mesh, limit)
    used = values["arguments"] + values["outputs"] - values["aliased"] + values["temporaries"]
    lines = [[program.name, f"compiled in {program.seconds:.0f} s"]]
    for name in ("arguments", "outputs", "aliased", "temporaries"):
        lines.append([f"{name}, a device", f"{values[name] / GIB:.3f} GiB"])
    lines.append(["in all (arguments + outputs - aliased + temporaries)", f"{used / GIB:.3f} GiB"])
    lines.append(["peak by the compiler's account", f"{values['peak'] / GIB:.3f} GiB"])
    lines.append(["memory of a device", f"{limit.memory / GIB:.0f} GiB" if limit else "no figure for this device"])
    lines.append(["FLOPs by the trace, all devices", f"{values['flops']:.3e}"])
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
        ]
        if "network" in seconds:
            rate = f"network between slices at {limit.network / 1e9:.3f} GB/s"
            lines.append([rate, f"{1e3 * seconds['network']:.2f} ms"])
        lines += [
            ["roofline", f"{1e3 * seconds[bound]:.2f} ms, bound by {bound}, {100 * at:.0f} % MFU at most"],
        ]
    return lines
