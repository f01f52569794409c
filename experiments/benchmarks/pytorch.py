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
from functools import partial
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
flags.DEFINE_integer("batch", 0, "examples per step; 0: those of the size", lower_bound=0)
flags.DEFINE_integer("repeats", 5, "timings of each side, taken alternately", lower_bound=1)
flags.DEFINE_integer("steps", 4, "training steps, and sampler steps, per timing", lower_bound=1)
flags.DEFINE_float("dropout", 0.1, "dropout of the training step", lower_bound=0.0, upper_bound=0.9)
flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "compute type of both sides")
flags.DEFINE_enum("remat", "none", ["none", "dots", "full"], "recomputation in our backward pass")
flags.DEFINE_integer("unroll", 0, "blocks per iteration of our loop; 0: all on CPU, else 1", lower_bound=0)
flags.DEFINE_enum("attention", "auto", ["auto", "plain", "xla", "cudnn", "splash"], "our attention backend")
flags.DEFINE_enum("only", "both", ["both", "ours", "torch"], "the sides to run")
flags.DEFINE_bool("keep_memory", True, "let malloc keep freed memory, for both sides")
flags.DEFINE_bool("memory", True, "measure the peak memory of each side in a separate process")
flags.DEFINE_string("output", "", "JSON file for the results")

Task = Callable[[], Any]  # runs `steps` steps and waits for them


def our_tasks(shape: dict[str, int], steps: int) -> tuple[dict[str, Task], dict[str, float], float]:
    """Compiled training step and sampler of this library, seconds of each compilation, and FLOPs of a training step."""
    import jax
    import jax.numpy as jnp

    from diffusion.nets.dit import DiT
    from diffusion.objectives.elbo import Nelbo
    from diffusion.processes.masking import MaskedDiffusion
    from diffusion.rng import draws, example_keys
    from diffusion.sampling.masked import policies
    from diffusion.sampling.masked.draw import Draw
    from diffusion.sampling.masked.grid import grid
    from diffusion.sampling.masked.sampler import MaskedSampler
    from diffusion.schedules import masking as schedules
    from diffusion.train.flops import count
    from diffusion.train.optimizer import adamw
    from diffusion.train.state import new_state
    from diffusion.train.step import gradients, make_step

    batch, length, mask_id = shape["batch"], shape["length"], shape["vocab_size"] - 1
    on_cpu = jax.default_backend() == "cpu"
    sizes: dict[str, Any] = {name: shape[name] for name in ("vocab_size", "hidden", "blocks", "heads")}
    net = DiT(
        **sizes,
        dropout=FLAGS.dropout,
        dtype=FLAGS.dtype,
        remat=FLAGS.remat,
        attention=FLAGS.attention,
        unroll=FLAGS.unroll or (shape["blocks"] if on_cpu else 1),
    )

    def denoiser_of(net):
        def denoiser(params, noisy, time, cond=None, memory=None, *, keys=None):
            return net.apply({"params": params}, noisy, None, keys=keys)

        return denoiser

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

    denoiser = denoiser_of(net)
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

    counted = Nelbo(denoiser_of(net.clone(attention="plain", remat="none")), process)
    noise = jax.eval_shape(lambda: draws(root, "train", 0, batch))
    flops = count(partial(gradients, counted, accumulate=1), carry["state"].params, data, noise)
    return {"training": training, "sampling": sampling}, seconds, flops


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


def utilization(flops: float, seconds: float) -> float | None:
    """Model FLOPs utilization of a training step, or None if the peak of the device is not known."""
    import jax

    from diffusion.train.hardware import peak

    device = peak(jax.devices()[0].device_kind)
    return flops / seconds / device.flops if device else None


def report(result: dict) -> str:
    """Lines of text with the results."""
    lines = ["{size}: {shape}, {dtype}, dropout {dropout}, {threads} threads".format(**result)]
    for kind in KINDS:
        for side, seconds in result["seconds"][kind].items():
            milliseconds = {name: 1e3 * value for name, value in seconds.items()}
            lines.append(
                "{kind:9s} {side:6s} {median:9.1f} ms per step  [{min:.1f}, {max:.1f}]".format(
                    kind=kind, side=side, **milliseconds
                )
            )
        if kind in result["ratio"]:
            lines.append(
                "{kind:9s} torch / ours {median:6.2f}  [{min:.2f}, {max:.2f}]".format(
                    kind=kind, **result["ratio"][kind]
                )
            )
    for kind, seconds in result["compile_seconds"].items():
        lines.append(f"compiling {kind}: {seconds:.1f} s")
    for side, memory in result["peak_mib_by_side"].items():
        lines.append(f"peak memory {side}: " + (f"{memory:.0f} MiB" if memory else "not measured"))
    if result["mfu"]:
        lines.append(f"model FLOPs utilization: {100 * result['mfu']:.1f} %")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Time both sides, print the ratios, and write --output."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    keeps_memory = keep_freed_memory() if FLAGS.keep_memory else False
    shape = dict(SHAPES[FLAGS.size])
    shape["batch"] = FLAGS.batch or shape["batch"]
    sides, compile_seconds, flops = {}, {}, 0.0
    if FLAGS.only != "torch":
        sides["ours"], compile_seconds, flops = our_tasks(shape, FLAGS.steps)
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
        "remat": FLAGS.remat,
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
        "mfu": utilization(flops, statistics.median(raw["training"]["ours"])) if "ours" in sides else None,
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
