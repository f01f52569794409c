"""Floors: how long the training step and the samplers must take on this machine, and how long they do take.

    python -m experiments.benchmarks.floors --cores=1

Four times a program, in milliseconds. `peak`: its products at the rate of a large square product. `shapes`: each of its
products alone, at its own shapes. `bytes`: the traffic of its products (`diffusion.train.traffic`), and in training of
the optimizer's state, at the rate of a large copy. `measured`: one step of the compiled program. The share is peak over
measured, and what is left over `shapes` is element-wise work, copies and random numbers. Writes
experiments/tables/floors.md.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags
from jax.interpreters.partial_eval import dce_jaxpr
from tabulate import tabulate

from diffusion.storage import atomic_write
from diffusion.train.flops import ONCE, product_flops, programs
from diffusion.train.traffic import product_bytes
from experiments.benchmarks.allocator import keep_freed_memory
from experiments.benchmarks.our_side import Programs, build
from experiments.benchmarks.shared import SHAPES, pin, processor

FLAGS = flags.FLAGS
flags.DEFINE_list("sizes", ["local", "large_vocabulary"], "networks, of experiments/benchmarks/shared.py")
flags.DEFINE_integer("cores", 0, "cores that the process is pinned to; 0: all that it may use", lower_bound=0)
flags.DEFINE_integer("repeats", 5, "timings, of which the medians are shown", lower_bound=1)
flags.DEFINE_list("steps", ["16", "64"], "steps of the samplers")

TABLE = Path(__file__).parents[1] / "tables" / "floors.md"
SQUARE, COPY = 2048, 2**26  # rows of the large product; floats of the large copy
HEADINGS = ["program", "GFLOP", "GB", "peak", "shapes", "bytes", "measured", "share of peak", "left over shapes"]


class Product(NamedTuple):
    """A product of two arrays, as `jax.lax.dot_general` has it."""

    left: jax.ShapeDtypeStruct
    right: jax.ShapeDtypeStruct
    dimensions: Any
    flops: float
    bytes: float


def products(function: Callable[..., Any], *inputs: Any) -> dict[Product, float]:
    """The products of a function with the number of their turns; of a conditional, those of its smaller branch."""
    jaxpr = dce_jaxpr(jax.make_jaxpr(function)(*inputs).jaxpr, True)[0]
    found: dict[Product, float] = defaultdict(float)
    for product, turns in _products(jaxpr, 1.0):
        found[product] += turns
    return found


def _products(jaxpr: Any, turns: float) -> Iterator[tuple[Product, float]]:
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            left, right = (jax.ShapeDtypeStruct(each.aval.shape, each.aval.dtype) for each in equation.invars)
            work = product_flops(equation)
            assert work is not None
            yield Product(left, right, params["dimension_numbers"], work, product_bytes(equation)), turns
            continue
        inner = [list(_products(part, turns)) for part in programs(params)]
        if name == "cond":
            yield from min(inner, key=lambda each: sum(product.flops * count for product, count in each))
        elif name == "scan":
            yield from ((product, count * params["length"]) for part in inner for product, count in part)
        elif name in ONCE or not any(inner):
            yield from (each for part in inner for each in part)
        else:
            raise ValueError(f"floors: {name} has products inside and an unknown number of turns")


def seconds_of(function: Callable[[], Any], repeats: int) -> float:
    """Median seconds of a call, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def product_seconds(product: Product, repeats: int) -> float:
    """Seconds of one product at its own shapes, of many in one program so that the call costs nothing."""
    turns = max(1, math.ceil(2e7 / max(product.flops, 1.0)))

    def many(left, right):
        def turn(_, carry):
            left, total = carry
            result = jax.lax.dot_general(left, right, product.dimensions)
            # Each product waits for the one before, which is not removed as one that nothing reads.
            return jax.lax.optimization_barrier((left, result))[0], total + result.ravel()[0]

        return jax.lax.fori_loop(0, turns, turn, (left, jnp.zeros((), left.dtype)))[1]

    inputs = [jax.random.normal(jax.random.key(0), each.shape).astype(each.dtype) for each in product[:2]]
    compiled = jax.jit(many).lower(*inputs).compile()
    return seconds_of(lambda: compiled(*inputs), repeats) / turns


class Rates(NamedTuple):
    """FLOP/s of a large product, and bytes/s that a large copy reads and writes."""

    flops: float
    bytes: float


def rates(repeats: int) -> Rates:
    """The rates of this machine."""
    square, floats = jnp.ones((SQUARE, SQUARE)), jnp.ones(COPY)
    multiply, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    return Rates(
        2 * SQUARE**3 / seconds_of(lambda: multiply(square, square), repeats),
        8 * COPY / seconds_of(lambda: copy(floats), repeats),
    )


def row(name: str, measured: float, found: dict[Product, float], extra: float, rate: Rates, repeats: int) -> list[str]:
    """One line of the table, of `measured` seconds; `extra` bytes are moved beside those of products."""
    work = sum(product.flops * turns for product, turns in found.items())
    moved = sum(product.bytes * turns for product, turns in found.items()) + extra
    shapes = sum(turns * product_seconds(product, repeats) for product, turns in found.items())
    peak = work / rate.flops
    *milliseconds, left = (
        f"{1e3 * each:.1f}" for each in (peak, shapes, moved / rate.bytes, measured, measured - shapes)
    )
    return [name, f"{work / 1e9:.2f}", f"{moved / 1e9:.2f}", *milliseconds, f"{peak / measured:.0%}", left]


def rows(size: str, steps: list[int], rate: Rates, repeats: int) -> Iterator[list[str]]:
    """The lines of a size: its training step, and its sampler with several numbers of steps."""
    shape = SHAPES[size]
    title = "{vocab_size:,} classes, {batch} x {length} tokens, {hidden} wide, {blocks} blocks".format(**shape)
    built = build(shape, dropout=0.0, dtype="float32")
    # The state is read and written, and the gradient written and read.
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(built.state.params))
    state = 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(built.state) if jnp.issubdtype(leaf.dtype, jnp.floating))
    step = built.training()
    found = products(built.step, built.state, built.data, built.root)
    measured = seconds_of(step, repeats)
    yield row(f"training step, {title}", measured, found, state + 2 * parameters, rate, repeats)
    for count in steps:
        sample = built.sampling(count)
        measured = seconds_of(sample, repeats) / count
        yield row(f"step of the sampler in {count}", measured, sampler_products(built, count), 0, rate, repeats)


def sampler_products(built: Programs, steps: int) -> dict[Product, float]:
    """The products of one step: those of the trunk, and the head on the tokens that a step draws on average."""
    batch, length = built.prompt.shape
    x = jax.eval_shape(built.trunk, built.state.params, built.prompt)
    drawn = -(-batch * length // steps)
    flat = jax.ShapeDtypeStruct((drawn, x.shape[-1]), x.dtype)
    trunk, head = (
        products(built.trunk, built.state.params, built.prompt),
        products(built.head, built.state.params, flat),
    )
    return trunk | head


def main(arguments: list[str]) -> None:
    """Measure, print and write the table."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected arguments: {' '.join(arguments[1:])}")
    if unknown := set(FLAGS.sizes) - set(SHAPES):
        raise app.UsageError(f"--sizes: unknown {', '.join(sorted(unknown))}; known: {', '.join(SHAPES)}")
    cores = pin(FLAGS.cores)
    keep_freed_memory()
    rate = rates(FLAGS.repeats)
    lines = [line for size in FLAGS.sizes for line in rows(size, list(map(int, FLAGS.steps)), rate, FLAGS.repeats)]
    table = tabulate(lines, HEADINGS, tablefmt="github", disable_numparse=True)
    machine = f"{cores} of {processor()}, JAX {jax.__version__}, float32"
    note = f"A large product runs at {rate.flops / 1e9:.0f} GFLOP/s and a large copy at {rate.bytes / 1e9:.1f} GB/s."
    command = f"`python -m experiments.benchmarks.floors --cores={FLAGS.cores}`"
    text = f"# Floors of the programs of MDLM\n\n{machine}. {note} Times are in ms, written by {command}.\n\n{table}\n"
    print(text)
    atomic_write(TABLE, text)


if __name__ == "__main__":
    app.run(main)
