"""Several small trainings as one program (a population) against the same trainings one after the other.

    python -m experiments.benchmarks.population --cores=1

The population is the training step of MDLM under `jax.vmap`, with parameters, batch and key of each member. A ratio
above 1 means that the population is faster.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from tabulate import tabulate

from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.our_side import Programs, build
from experiments.benchmarks.shared import SHAPES, paired, pin, processor, timed

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["debug", "local"], "networks, of experiments/benchmarks/shared.py")
flags.DEFINE_integer("batch", 16, "sequences of each member", lower_bound=1)
flags.DEFINE_integer("members", 4, "trainings", lower_bound=1)
flags.DEFINE_integer("steps", 4, "training steps per timing", lower_bound=1)
flags.DEFINE_integer("cores", 0, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("repeats", 8, "timings, taken in turns", lower_bound=1)


def stacked(tree: Any, members: int) -> Any:
    """A tree for each member, on a new first axis."""
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * members), tree)


def alone(programs: Programs, members: int, steps: int) -> Callable[[], Any]:
    """A function that trains each member for so many steps, one after the other."""
    step = jax.jit(programs.step)

    def run() -> Any:
        return [trained(step, programs.state, (programs.data, programs.root), steps) for _ in range(members)]

    return run


def together(programs: Programs, members: int, steps: int) -> Callable[[], Any]:
    """A function that trains all members for so many steps as one program."""
    step, state = jax.jit(jax.vmap(programs.step)), stacked(programs.state, members)
    return functools.partial(trained, step, state, stacked((programs.data, programs.root), members), steps)


def trained(step: Callable[..., Any], state: Any, inputs: tuple, steps: int) -> Any:
    """The state after some steps on the same inputs."""
    for _ in range(steps):
        state, _ = step(state, *inputs)
    return state


def main(arguments: list[str]) -> None:
    """Time both at each size, and print their ratio."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    cores = pin(FLAGS.cores)
    keep_freed_memory()
    rows = []
    for size in FLAGS.sizes:
        shape = SHAPES[size] | {"batch": FLAGS.batch}
        programs = build(shape, dropout=0.0, dtype="float32")
        tasks = {form.__name__: form(programs, FLAGS.members, FLAGS.steps) for form in (alone, together)}
        seconds = timed(tasks, FLAGS.repeats)
        per_step = [1e3 * statistics.median(each) / FLAGS.members / FLAGS.steps for each in seconds.values()]
        name = f"{shape['hidden']} wide, {shape['batch']} x {shape['length']}"
        rows.append([name, *(f"{ms:.2f}" for ms in per_step), paired(*seconds.values())])
    print(f"{FLAGS.members} members, {cores} of {processor()}, {FLAGS.repeats} repeats\n")
    print(tabulate(rows, ["training", "alone, ms", "together, ms", "ratio"], tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
