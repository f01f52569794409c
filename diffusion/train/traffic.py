"""Memory traffic and roofline of a function, estimated from the program that JAX traces; nothing is compiled or run.

The rule: each product of matrices and each convolution reads its two operands and writes its result once, in the types
that it reads and writes. All else, element-wise functions, reductions, norms, reshapes and copies, is taken as fused
into the products around it, and costs nothing. So are the scores of attention, which its kernels keep on chip: the
largest array of a batched product, if it has more elements than the two others together. Both are optimistic, so that a
roofline from this traffic is a lower bound of time. Gradients of attention that read stored scores count likewise.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.interpreters.partial_eval import dce_jaxpr

from diffusion.train.flops import ONCE, OPAQUE, product_flops, programs
from diffusion.train.hardware import Peak


class Operation(NamedTuple):
    """A product or convolution, the times it runs, and FLOPs and bytes of one time; `wide` is a product in float32."""

    name: str
    times: float
    flops: float
    bytes: float
    wide: bool


class Roofline(NamedTuple):
    """Seconds of a program at peak rates, which add up over programs.

    `seconds` sums the slower of compute and memory over operations, of which `bound` are those of operations that
    compute binds; `compute` and `memory` are each alone.
    """

    seconds: float = 0.0
    bound: float = 0.0
    compute: float = 0.0
    memory: float = 0.0

    @property
    def whole(self) -> float:
        """The bound of the program as a whole: the slower of all compute and all traffic."""
        return max(self.compute, self.memory)


def operations(function: Callable[..., Any], *inputs: Any, scores: bool = False) -> tuple[Operation, ...]:
    """Return the products and convolutions of `function` on inputs of these shapes, as `diffusion.train.flops.count`.

    With `scores`, the scores of attention are written and read, as without a kernel.

    Raises:
      ValueError: for opaque kernels, and for products in a loop of unknown length or under a condition.
    """
    jaxpr = jax.make_jaxpr(function)(*inputs).jaxpr
    return tuple(_operations(dce_jaxpr(jaxpr, True)[0], 1.0, scores))


def flops(program: tuple[Operation, ...]) -> float:
    """Return the FLOPs of a program."""
    return sum(each.times * each.flops for each in program)


def traffic(program: tuple[Operation, ...]) -> float:
    """Return the bytes that a program moves."""
    return sum(each.times * each.bytes for each in program)


def roofline(program: tuple[Operation, ...], peak: Peak, wide: float = 1.0) -> Roofline:
    """Return the seconds of a program on one device; float32 products run at `wide` times the rate of bfloat16."""
    rows = []
    for each in program:
        compute = each.times * each.flops / (peak.flops * (wide if each.wide else 1.0))
        memory = each.times * each.bytes / peak.bandwidth
        rows.append((max(compute, memory), compute if compute >= memory else 0.0, compute, memory))
    return Roofline(*(float(sum(column)) for column in zip(*rows, strict=True)))


def _operations(jaxpr: Any, times: float, scores: bool) -> Iterator[Operation]:
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        work = product_flops(equation)
        if work is not None:
            yield Operation(
                name, times, work, product_bytes(equation, scores), equation.invars[0].aval.dtype.itemsize >= 4
            )
            continue
        if name in OPAQUE:
            raise ValueError(f"traffic: {name} cannot be estimated; trace the program with attention=plain")
        inner = [each for part in programs(params) for each in _operations(part, times, scores)]
        if inner and name == "scan":
            inner = [each._replace(times=each.times * params["length"]) for each in inner]
        elif inner and name not in ONCE:
            raise ValueError(f"traffic: {name} has products inside; estimate its parts, or write the loop as a scan")
        yield from inner


def product_bytes(equation: Any, scores: bool = False) -> float:
    """Return the bytes that an equation of a jaxpr, a product or a convolution, moves; `scores` as in `operations`."""
    arrays = [each.aval for each in (*equation.invars[:2], equation.outvars[0])]
    if not scores and equation.primitive.name == "dot_general" and equation.params["dimension_numbers"][1][0]:
        *rest, largest = sorted(arrays, key=lambda each: each.size)
        arrays = rest if largest.size > sum(each.size for each in rest) else arrays
    return float(sum(math.prod(each.shape) * each.dtype.itemsize for each in arrays))
