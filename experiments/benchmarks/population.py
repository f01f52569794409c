"""Several small trainings as one program (a population) against the same trainings one after the other.

    python -m experiments.benchmarks.population --cores=1

The population is the training step of MDLM for all members, as `run --population` compiles it. With several devices
each trains members of its own, where the trainings alone split their batches. A ratio above 1 means that the population
is faster.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.sharding import Mesh
from tabulate import tabulate

from diffusion.train.mesh import abstract, make_mesh
from diffusion.train.population import alone, together
from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.our_side import Programs, build
from experiments.benchmarks.shared import SHAPES, paired, pin, processor, timed
from experiments.devices import split_cpu

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["debug", "local"], "networks, of experiments/benchmarks/shared.py")
flags.DEFINE_integer("batch", 16, "sequences of each member", lower_bound=1)
flags.DEFINE_integer("members", 4, "trainings", lower_bound=1)
flags.DEFINE_integer("steps", 4, "training steps per timing", lower_bound=1)
flags.DEFINE_integer("cores", 0, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("devices", 1, "devices into which CPUs are split", lower_bound=1)
flags.DEFINE_integer("repeats", 8, "timings, taken in turns", lower_bound=1)


def task(programs: Programs, members: int, steps: int, mesh: Mesh) -> Callable[[], Any]:
    """A function that trains `members` trainings for so many steps, as one program if there are several."""
    state = abstract(jax.eval_shape(lambda: programs.state), mesh)
    form = alone(programs.step, state, mesh) if members == 1 else together(programs.step, state, mesh, members)
    copies = [jax.device_put(programs.state, jax.tree.map(lambda leaf: leaf.sharding, state))] * members
    data = form.put([jax.device_get(programs.data)] * members)
    roots = form.roots([programs.root] * members)
    carry = {"state": jax.tree.map(jnp.copy, form.join(copies))}

    def run() -> Any:
        with jax.set_mesh(mesh):
            for _ in range(steps):
                carry["state"], metrics = form.step(carry["state"], data, roots)
        return metrics

    return run


def main(arguments: list[str]) -> None:
    """Time both at each size, and print their ratio."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    cores = pin(FLAGS.cores)
    keep_freed_memory()
    split_cpu(FLAGS.devices)
    rows, mesh = [], make_mesh()
    for size in FLAGS.sizes:
        shape = SHAPES[size] | {"batch": FLAGS.batch}
        programs = build(shape, dropout=0.0, dtype="float32")
        one = task(programs, 1, FLAGS.steps, mesh)
        tasks = {
            "alone": lambda one=one: [one() for _ in range(FLAGS.members)],
            "together": task(programs, FLAGS.members, FLAGS.steps, mesh),
        }
        seconds = timed(tasks, FLAGS.repeats)
        per_step = [1e3 * statistics.median(each) / FLAGS.members / FLAGS.steps for each in seconds.values()]
        name = f"{shape['hidden']} wide, {shape['batch']} x {shape['length']}"
        rows.append([name, *(f"{ms:.2f}" for ms in per_step), paired(*seconds.values())])
    print(f"{FLAGS.members} members, {jax.device_count()} devices, {cores} of {processor()}, {FLAGS.repeats} repeats\n")
    print(tabulate(rows, ["training", "alone, ms", "together, ms", "ratio"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
