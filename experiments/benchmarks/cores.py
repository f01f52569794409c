"""One core, all cores as threads of one device, and all cores as devices: a training step and a sampler.

    python -m experiments.benchmarks.cores

Three processes with the network of the quickstart take turns, so that slow periods of the machine affect all of them;
ratios are to one core, paired by repeat. A device has its own rows of a batch (`cpu_devices`).
"""

import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from absl import app, flags
from tabulate import tabulate

from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.shared import paired, pin, processor

FLAGS = flags.FLAGS
flags.DEFINE_list("batches", ["4", "16", "64"], "samples at a time")
flags.DEFINE_integer("steps", 16, "steps of the sampler", lower_bound=1)
flags.DEFINE_integer("repeats", 8, "timings of each program, taken in turns", lower_bound=1)
flags.DEFINE_string("variant", "local", "variant of configs/quickstart.py")

Tasks = dict[str, Callable[[], Any]]
TRAINING = "training step, ms"


def sampler_of(batch: int) -> str:
    """The name of the sampler of a batch."""
    return f"batch of {batch}, ms/sample"


def tasks(variant: str, batches: tuple[int, ...], steps: int) -> Tasks:
    """The training step and the samplers of the quickstart's MDLM on all devices, compiled."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from configs import quickstart
    from diffusion.rng import example_keys
    from diffusion.train.mesh import batch_sharding, make_mesh, put_batch, replicated
    from diffusion.train.population import jit_step
    from diffusion.train.state import abstract_state, init_state
    from diffusion.train.step import make_step
    from experiments import families
    from experiments.plan import resolve

    table = quickstart.get_config(variant)
    rows: list[dict[str, Any]] = list(quickstart.rows(table))
    row = next(each for each in rows if each["name"] == "MDLM")
    config = resolve(table, row["overrides"], 0)
    config.sample.steps = steps
    system = families.system(config, config.data.vocab_size)
    optimizer, mesh = families.optimizer(config), make_mesh(**config.mesh)
    abstract = abstract_state(system.init, optimizer, mesh)
    carry = {"state": init_state(system.init, optimizer, mesh, jax.random.key(0))}
    params = jax.tree.map(jnp.copy, carry["state"].params)
    settings = families.settings(config)
    step = make_step(families.objective(config, system), optimizer, decay=settings.ema, accumulate=settings.accumulate)
    step = jit_step(step, abstract, mesh)
    shape = config.train.batch, config.data.length
    tokens = np.random.default_rng(0).integers(0, config.data.vocab_size, shape, np.int32)
    data = put_batch({"tokens": tokens, "weights": np.ones(shape, np.float32)}, mesh)
    root = jax.device_put(jax.random.key(1), replicated(mesh))
    draw = jax.jit(families.sampler(config, system))

    def train() -> Any:
        with jax.set_mesh(mesh):
            carry["state"], metrics = step(carry["state"], data, root)
        return carry["state"], metrics

    def sample(batch: int) -> Any:
        split = batch_sharding(mesh)
        keys = jax.device_put(example_keys(jax.random.key(2), jnp.arange(batch)), split)
        prompt = jax.device_put(jnp.full((batch, config.data.length), system.masking.mask_id, jnp.int32), split)
        with jax.set_mesh(mesh):
            return draw(params, keys, prompt)

    samplers = {sampler_of(batch): functools.partial(sample, batch) for batch in batches}
    return {TRAINING: train} | samplers


def serve(cores: int, devices: int, options: tuple, connection: Connection) -> None:
    """Run the task that the other end names, and answer with its seconds, until the name is empty."""
    pin(cores)
    os.environ["JAX_PLATFORMS"] = "cpu"
    from experiments.devices import split_cpu

    split_cpu(devices)
    keep_freed_memory()
    import jax

    programs = tasks(*options)
    for program in programs.values():
        jax.block_until_ready(program())  # compiles it
    connection.send(None)
    while name := connection.recv():
        start = time.perf_counter()
        jax.block_until_ready(programs[name]())
        connection.send(time.perf_counter() - start)


def main(arguments: list[str]) -> None:
    """Time the programs of all processes in turns, and print them with their ratios to one core."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    count = len(os.sched_getaffinity(0))
    if count == 1:
        raise app.UsageError("there is one core")
    batches = tuple(map(int, FLAGS.batches))
    sizes = {TRAINING: 1} | {sampler_of(batch): batch for batch in batches}
    setups = {"one core": (1, 1), f"{count} threads": (count, 1), f"{count} devices": (count, count)}
    workers, context = {}, multiprocessing.get_context("spawn")
    for name, setup in setups.items():
        ours, theirs = context.Pipe()
        options = FLAGS.variant, batches, FLAGS.steps
        context.Process(target=serve, args=(*setup, options, theirs), daemon=True).start()
        theirs.close()
        ours.recv()  # one after the other, so that they compile with all cores
        workers[name] = ours
    seconds = {task: {name: [] for name in setups} for task in sizes}
    for repeat in range(FLAGS.repeats + 1):
        for task, size in sizes.items():
            for name, worker in workers.items():
                worker.send(task)
                if (spent := worker.recv() / size) and repeat:  # the first repeat warms up
                    seconds[task][name].append(spent)
    for worker in workers.values():
        worker.send("")
    rows = []
    for task, times in seconds.items():
        cells = []
        for name, values in times.items():
            gain = "" if name == "one core" else f" ({paired(times['one core'], values)})"
            cells.append(f"{1e3 * statistics.median(values):.1f}{gain}")
        rows.append([task, *cells])
    print(f"MDLM of the quickstart, samplers of {FLAGS.steps} steps, {processor()}, {FLAGS.repeats} repeats\n")
    print(tabulate(rows, ["", *setups], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
