"""Attention in blocks of queries against whole products, on the devices that are here.

    python -m experiments.benchmarks.attention --cores=1

Both run in turns, forward and with the gradient; a ratio above 1 means that blocks are faster. The memory is that of
the temporaries of the compiled program. `model.attention=auto` takes blocks on a CPU from
`diffusion.nets.attention.LONG` positions on.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from tabulate import tabulate

from diffusion.nets.attention import blocked, plain
from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.shared import paired, pin, processor, timed

FLAGS = flags.FLAGS
flags.DEFINE_list("lengths", ["128", "512", "1024"], "positions of each measurement, multiples of 64")
flags.DEFINE_integer("tokens", 4096, "positions times sequences of a batch", lower_bound=1)
flags.DEFINE_integer("heads", 4, "heads", lower_bound=1)
flags.DEFINE_integer("head_dim", 32, "channels of a head", lower_bound=1)
flags.DEFINE_integer("cores", 0, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("repeats", 8, "timings, taken alternately", lower_bound=1)


def forward(attention: Callable[..., Any], *inputs: Any) -> Any:
    """What the attention mixes."""
    return attention(*inputs)


def gradient(attention: Callable[..., Any], *inputs: Any) -> Any:
    """The gradient of a sum with respect to all inputs."""
    return jax.grad(lambda *inputs: jnp.sum(attention(*inputs) ** 2), (0, 1, 2))(*inputs)


def temporaries(program: jax.stages.Compiled) -> str:
    """Memory of the temporaries of a program, in MiB."""
    memory = program.memory_analysis()
    return f"{memory.temp_size_in_bytes / 2**20:.1f}" if memory else ""


def main(arguments: list[str]) -> None:
    """Time both forms at each length, and print their ratios."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    cores = pin(FLAGS.cores)
    keep_freed_memory()
    rows = []
    for length in map(int, FLAGS.lengths):
        shape = max(FLAGS.tokens // length, 1), length, FLAGS.heads, FLAGS.head_dim
        inputs = [jax.random.normal(jax.random.key(seed), shape) for seed in range(3)]
        for kind in (forward, gradient):
            programs = {
                form.__name__: jax.jit(functools.partial(kind, form)).lower(*inputs).compile()
                for form in (plain, blocked)
            }
            tasks = {name: functools.partial(program, *inputs) for name, program in programs.items()}
            seconds = timed(tasks, FLAGS.repeats)
            memory = [temporaries(program) for program in programs.values()]
            middle = [f"{1e3 * statistics.median(values):.1f}" for values in seconds.values()]
            rows.append([f"{shape[0]} x {length}", kind.__name__, *middle, paired(*seconds.values()), *memory])
    print(f"{FLAGS.heads} heads of {FLAGS.head_dim}, float32, {cores} of {processor()}, {FLAGS.repeats} repeats\n")
    headings = ["sequences x positions", "pass", "plain, ms", "blocked, ms", "plain over blocked"]
    headings += ["plain, MiB", "blocked, MiB"]
    print(tabulate(rows, headings, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    app.run(main)
