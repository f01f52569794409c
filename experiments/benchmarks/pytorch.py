"""Training step and sampler compared with a plain PyTorch implementation of the same network.

    python -m experiments.benchmarks.pytorch --size=local --repeats=5

Both sides run alternately in one process on the same threads; a ratio above 1 means that ours is faster. Both do
the same work: the loss of MDLM, clipping, AdamW and moving average; ancestral sampling with one evaluation per step.
"""

import json
import os
import platform
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

SHAPES = {
    "debug": dict(hidden=32, blocks=2, heads=2, vocab_size=66, length=16, batch=4),
    "local": dict(hidden=128, blocks=4, heads=4, vocab_size=1026, length=128, batch=32),
    "small": dict(hidden=768, blocks=12, heads=12, vocab_size=50258, length=1024, batch=32),
}
KINDS = ("training", "sampling")

FLAGS = flags.FLAGS
flags.DEFINE_enum("size", "local", list(SHAPES), "network, sequence length and batch")
flags.DEFINE_integer("repeats", 5, "timings of each side, taken alternately", lower_bound=1)
flags.DEFINE_integer("steps", 4, "training steps, and sampler steps, per timing", lower_bound=1)
flags.DEFINE_float("dropout", 0.1, "dropout of the training step", lower_bound=0.0, upper_bound=0.9)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "compute type of both sides")
flags.DEFINE_enum("only", "both", ["both", "ours", "torch"], "the sides to run")
flags.DEFINE_bool("keep_memory", True, "let malloc keep freed memory, for both sides")
flags.DEFINE_bool("memory", True, "measure the peak memory of each side in a separate process")
flags.DEFINE_string("output", "", "JSON file for the results")

Task = Callable[[], Any]  # runs `steps` steps and waits for them


def our_tasks(shape: dict[str, int], steps: int) -> tuple[dict[str, Task], dict[str, float]]:
    """Compiled training step and sampler of this library, and seconds of each compilation."""
    import jax
    import jax.numpy as jnp

    from diffusion.nets.dit import DiT
    from diffusion.objectives.elbo import Nelbo
    from diffusion.processes.masking import MaskedDiffusion
    from diffusion.rng import example_keys
    from diffusion.sampling.masked import policies
    from diffusion.sampling.masked.draw import Draw
    from diffusion.sampling.masked.grid import grid
    from diffusion.sampling.masked.sampler import MaskedSampler
    from diffusion.schedules import masking as schedules
    from diffusion.train.optimizer import adamw
    from diffusion.train.state import new_state
    from diffusion.train.step import make_step

    batch, length, mask_id = shape["batch"], shape["length"], shape["vocab_size"] - 1
    on_cpu = jax.default_backend() == "cpu"
    sizes: dict[str, Any] = {name: shape[name] for name in ("vocab_size", "hidden", "blocks", "heads")}
    unroll = shape["blocks"] if on_cpu else 1
    net = DiT(**sizes, dropout=FLAGS.dropout, dtype=FLAGS.dtype, unroll=unroll)

    def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
        return net.apply({"params": params}, noisy, None, keys=keys)

    process = MaskedDiffusion(mask_id, schedules.LogLinear(1e-3))
    optimizer = adamw(peak=3e-4, warmup=2500, steps=10**6)
    root = jax.random.key(0)

    def begin(key):
        return new_state(net.init(key, jnp.zeros((1, length), jnp.int32))["params"], optimizer)

    tokens = jax.random.randint(jax.random.key(1), (batch, length), 0, mask_id)
    data = {"tokens": tokens, "weights": jnp.ones((batch, length))}
    carry = {"state": jax.jit(begin)(jax.random.key(2))}
    seconds = {}

    def compiled(kind: str, function: Callable, *inputs, **options):
        start = time.perf_counter()
        program = jax.jit(function, **options).lower(*inputs).compile()
        seconds[kind] = time.perf_counter() - start
        return program

    step = make_step(Nelbo(denoiser, process), optimizer)
    train = compiled("training", step, carry["state"], data, root, donate_argnums=0)

    def training():
        for _ in range(steps):
            carry["state"], metrics = train(carry["state"], data, root)
        jax.block_until_ready((carry["state"], metrics))

    sampler = MaskedSampler(denoiser, process, policies.Policy(policies.ancestral_step), Draw(mask_id), final="none")
    table = grid(process.schedule, steps, length)
    prompt = jnp.full((batch, length), mask_id, jnp.int32)
    keys = example_keys(root, jnp.arange(batch))
    sample = compiled("sampling", sampler, carry["state"].params, keys, prompt, table)

    def sampling():
        jax.block_until_ready(sample(carry["state"].params, keys, prompt, table))

    return {"training": training, "sampling": sampling}, seconds


def spread(values: list[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(sides: dict[str, dict[str, Task]], repeats: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Seconds per step by kind and side; alternate timings let slow periods of the machine affect both sides."""
    seconds = {kind: {side: [] for side in sides} for kind in KINDS}
    for repeat in range(repeats + 1):
        for kind in KINDS:
            for side, tasks in sides.items():
                start = time.perf_counter()
                tasks[kind]()
                if repeat:  # the first repeat warms up caches and allocators
                    seconds[kind][side].append((time.perf_counter() - start) / steps)
    return seconds


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
        overrides = [f"--only={side}", "--repeats=1", "--nomemory", f"--output={output}"]
        command = [sys.executable, "-m", "experiments.benchmarks.pytorch", *sys.argv[1:], *overrides]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            return None
        return json.loads(output.read_text())["peak_mib"]


def report(result: dict) -> str:
    """Lines of text with the results."""
    lines = ["{size}: {shape}, {dtype}, dropout {dropout}, {threads} threads".format(**result)]
    for kind in KINDS:
        for side, seconds in result["seconds"][kind].items():
            low, middle, high = (1e3 * seconds[name] for name in ("min", "median", "max"))
            lines.append(f"{kind:9s} {side:6s} {middle:9.1f} ms per step  [{low:.1f}, {high:.1f}]")
        if kind in result["ratio"]:
            ratio = result["ratio"][kind]
            lines.append(f"{kind:9s} torch / ours {ratio['median']:6.2f}  [{ratio['min']:.2f}, {ratio['max']:.2f}]")
    for kind, seconds in result["compile_seconds"].items():
        lines.append(f"compiling {kind}: {seconds:.1f} s")
    for side, memory in result["peak_mib_by_side"].items():
        lines.append(f"peak memory {side}: " + (f"{memory:.0f} MiB" if memory else "not measured"))
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Time both sides, print the ratios, and write --output."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    keeps_memory = keep_freed_memory() if FLAGS.keep_memory else False
    shape, sides, compile_seconds = SHAPES[FLAGS.size], {}, {}
    if FLAGS.only != "torch":
        sides["ours"], compile_seconds = our_tasks(shape, FLAGS.steps)
    if FLAGS.only != "ours":
        try:
            from experiments.benchmarks.torch_reference import tasks

            sides["torch"] = tasks(shape, FLAGS.steps, dropout=FLAGS.dropout, dtype=FLAGS.dtype)
        except ImportError:
            if FLAGS.only == "torch":
                raise app.UsageError("--only=torch needs PyTorch; pip install torch") from None
            print("PyTorch is not installed: timing only ours (pip install torch for the comparison)")
    raw = measure(sides, FLAGS.repeats, FLAGS.steps)
    result = {
        "size": FLAGS.size,
        "shape": shape,
        "dtype": FLAGS.dtype,
        "dropout": FLAGS.dropout,
        "keeps_memory": keeps_memory,
        "processor": platform.processor() or platform.machine(),
        "threads": len(os.sched_getaffinity(0)),
        "repeats": FLAGS.repeats,
        "steps": FLAGS.steps,
        "seconds": {kind: {side: spread(values) for side, values in raw[kind].items()} for kind in KINDS},
        "ratio": {
            kind: spread([torch / ours for torch, ours in zip(raw[kind]["torch"], raw[kind]["ours"], strict=True)])
            for kind in KINDS
            if len(sides) == 2
        },
        "compile_seconds": compile_seconds,
        "peak_mib": process_peak_memory(),
        "peak_mib_by_side": {side: peak_memory(side) for side in sides} if FLAGS.memory else {},
    }
    if "ours" in sides:
        import jax

        result |= {"device": jax.devices()[0].device_kind, "versions": {"jax": jax.__version__}}
    if "torch" in sides:
        import torch  # pyright: ignore[reportMissingImports]

        result.setdefault("versions", {})["torch"] = torch.__version__
    print(report(result))
    if FLAGS.output:
        Path(FLAGS.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
