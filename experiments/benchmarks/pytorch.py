"""Training step and sampler compared with PyTorch, on equal terms.

    python -m experiments.benchmarks.pytorch --size=local --cores=1

All sides run alternately in one process on the same cores; a ratio above 1 means that ours is faster. All do the same
work: the loss of MDLM, clipping, AdamW and moving average; ancestral sampling with one evaluation per step. The peers
are described in `torch_peers`. On processors of AMD, PyTorch's MKL may not use AVX-512, which the rates of a matrix
product show; they are printed first.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags

from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.shared import SHAPES, pin, processor

KINDS = ("training", "sampling")
MATMUL = 1024  # rows and columns
ALL_LOGITS = "all_logits"  # ours, with the head applied to all tokens

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "local", list(SHAPES), "network, sequence length and batch")
flags.DEFINE_integer("batch", 0, "sequences at a time; 0: those of the size", lower_bound=0)
flags.DEFINE_integer("cores", 0, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("repeats", 5, "timings of each side, taken alternately", lower_bound=1)
flags.DEFINE_integer("steps", 4, "training steps per timing", lower_bound=1)
flags.DEFINE_integer("sampler_steps", 16, "steps of the sampler, of which one run is one timing", lower_bound=1)
flags.DEFINE_float("dropout", 0.0, "dropout of the training step", lower_bound=0.0, upper_bound=0.9)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "compute type of all sides")
flags.DEFINE_list(
    "sides",
    ["ours", "reference", "public", "compiled"],
    "the sides to run; all_logits: ours without `diffusion.readout`",
)
flags.DEFINE_bool("keep_memory", True, "let malloc keep freed memory, for all sides")
flags.DEFINE_bool("memory", False, "measure the peak memory of each side in a separate process")
flags.DEFINE_string("output", "", "JSON file for the results")

Task = Callable[[], Any]  # runs all steps and waits for them


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(
    sides: dict[str, dict[str, Task]], repeats: int, steps: dict[str, int]
) -> dict[str, dict[str, list[float]]]:
    """Seconds per step by kind and side; alternate timings let slow periods of the machine affect all sides."""
    seconds = {kind: {side: [] for side in sides} for kind in KINDS}
    for repeat in range(repeats + 1):
        for kind in KINDS:
            for side, tasks in sides.items():
                start = time.perf_counter()
                tasks[kind]()
                if repeat:  # the first repeat warms up caches and allocators, and compiles the peer that is compiled
                    seconds[kind][side].append((time.perf_counter() - start) / steps[kind])
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Seconds of each peer over ours, paired by repeat."""
    ours = seconds.get("ours")
    return {
        side: spread([peer / our for peer, our in zip(values, ours, strict=True)])
        for side, values in seconds.items()
        if ours and side != "ours"
    }


def process_peak_memory() -> float:
    """Peak resident set of this process in MiB; getrusage would include that of the parent before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(side: str) -> float | None:
    """Peak resident set in MiB of a separate process with this side only."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "result.json"
        overrides = [f"--sides={side}", "--repeats=1", "--nomemory", f"--output={output}"]
        command = [sys.executable, "-m", "experiments.benchmarks.pytorch", *sys.argv[1:], *overrides]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            return None
        return json.loads(output.read_text())["peak_mib"]


def report(result: dict) -> str:
    """Lines of text with the results."""
    lines = ["{size}: {shape}, {dtype}, dropout {dropout}, {cores} cores of {processor}".format(**result)]
    rates = result["matmul_gflops"]
    lines += [f"float32 matrix product, {name}: {rate:.0f} GFLOP/s" for name, rate in rates.items()]
    if "torch" in rates and "jax" in rates and rates["torch"] < 0.7 * rates["jax"]:
        lines.append("PyTorch's products are slower than the processor: its library leaves out instructions on it")
    for kind in KINDS:
        for side, seconds in result["seconds"][kind].items():
            low, middle, high = (1e3 * seconds[name] for name in ("min", "median", "max"))
            line = f"{kind:9s} {side:10s} {middle:9.1f} ms per step  [{low:.1f}, {high:.1f}]"
            if ratio := result["ratio"][kind].get(side):
                line += "   over ours {median:.2f}  [{min:.2f}, {max:.2f}]".format(**ratio)
            lines.append(line)
    for kind, seconds in result["compile_seconds"].items():
        lines.append(f"compiling {kind}: {seconds:.1f} s")
    for side, memory in result["peak_mib_by_side"].items():
        lines.append(f"peak memory {side}: " + (f"{memory:.0f} MiB" if memory else "not measured"))
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Time all sides, print the ratios, and write --output."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    pin(FLAGS.cores)
    keeps_memory = keep_freed_memory() if FLAGS.keep_memory else False
    shape = SHAPES[FLAGS.size] | ({"batch": FLAGS.batch} if FLAGS.batch else {})
    sides, compile_seconds, rates, versions = {}, {}, {}, {}
    options = {"dropout": FLAGS.dropout, "dtype": FLAGS.dtype}
    ours = [side for side in ("ours", ALL_LOGITS) if side in FLAGS.sides]
    if ours:
        import jax

        from experiments.benchmarks import our_side

        versions["jax"] = jax.__version__
        rates["jax"] = 2 * MATMUL**3 / statistics.median(our_side.matmul_seconds(MATMUL, 9)) / 1e9
    for side in ours:
        sides[side], seconds = our_side.tasks(
            shape, FLAGS.steps, FLAGS.sampler_steps, **options, all_logits=side == ALL_LOGITS
        )
        compile_seconds |= {f"{kind}, {side}": value for kind, value in seconds.items()}
    peers = [side for side in FLAGS.sides if side not in ours]
    try:
        import torch  # pyright: ignore[reportMissingImports]

        from experiments.benchmarks import torch_peers
    except ImportError:
        if peers and not ours:
            raise app.UsageError(f"--sides: {', '.join(peers)} need PyTorch; pip install torch") from None
        if peers:
            print("PyTorch is not installed: timing only ours (pip install torch for the comparison)")
    else:
        if unknown := set(peers) - set(torch_peers.PEERS):
            raise app.UsageError(
                f"--sides: unknown {', '.join(sorted(unknown))}; ours, {ALL_LOGITS}, {', '.join(torch_peers.PEERS)}"
            )
        versions["torch"] = torch.__version__
        rates["torch"] = 2 * MATMUL**3 / statistics.median(torch_peers.matmul_seconds(MATMUL, 9)) / 1e9
        for peer in peers:
            sides[peer] = torch_peers.tasks(peer, shape, FLAGS.steps, FLAGS.sampler_steps, **options)
    raw = measure(sides, FLAGS.repeats, {"training": FLAGS.steps, "sampling": FLAGS.sampler_steps})
    result = {
        "size": FLAGS.size,
        "shape": shape,
        **options,
        "keeps_memory": keeps_memory,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "matmul_gflops": rates,
        "repeats": FLAGS.repeats,
        "steps": FLAGS.steps,
        "sampler_steps": FLAGS.sampler_steps,
        "seconds": {kind: {side: spread(values) for side, values in raw[kind].items()} for kind in KINDS},
        "ratio": {kind: ratios(raw[kind]) for kind in KINDS},
        "compile_seconds": compile_seconds,
        "peak_mib": process_peak_memory(),
        "peak_mib_by_side": {side: peak_memory(side) for side in sides} if FLAGS.memory else {},
        "versions": versions,
    }
    print(report(result))
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
