"""Floating-point operations of a function, counted in the program that JAX traces; nothing is compiled or executed.

The convention is that of model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B): the products of matrices and the
convolutions alone, a multiply-add as two operations, attention in full also where it is causal, and no recomputation.
A causal kernel skips half of attention, so that the utilization of a causal model is overestimated by that half, as in
all figures of this convention. Count a program without rematerialization, and with `plain` attention: a fused kernel is
one opaque operation.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.interpreters.partial_eval import dce_jaxpr

# Operations that execute the program inside them once.
REPEATED = {"checkpoint", "remat2"}  # in a backward pass
ONCE = {"jit", "pjit", "call", "closed_call", "custom_jvp_call", "custom_vjp_call"} | REPEATED
# Operations whose work does not show in the program.
OPAQUE = {"pallas_call", "ffi_call", "custom_partitioning", "pure_callback", "io_callback", "ragged_dot_general"}
OPAQUE |= {"cholesky", "lu", "geqrf", "householder_product", "eigh", "eig", "svd", "schur", "triangular_solve"}
OPAQUE |= {f"dot_product_attention{kind}{way}" for kind in ("", "_fp8") for way in ("_fwd", "_bwd")}
OPAQUE |= {f"{name}_wrapper" for name in OPAQUE if name.startswith("dot_product")}


def count(function: Callable[..., Any], *inputs: Any, taken: float = 1.0) -> float:
    """Count the operations of `function` on inputs of these shapes (arrays or `jax.ShapeDtypeStruct`).

    A scan counts its length times, a conditional its larger branch in the share `taken` of its executions and its
    smaller one in the others, a `shard_map` once per device. What a checkpoint may skip counts, unless `taken` is 0.
    Results that nothing reads are not computed.

    Raises:
      ValueError: for an opaque kernel, and for products in a loop whose length is not known.
    """
    jaxpr = jax.make_jaxpr(function)(*inputs).jaxpr
    return _program(dce_jaxpr(jaxpr, True)[0], taken)


def _program(jaxpr: Any, taken: float) -> float:
    return sum(_operation(equation, taken) for equation in jaxpr.eqns)


def product_flops(equation: Any) -> float | None:
    """Return the operations of an equation of a jaxpr that is a product or a convolution, or None for others."""
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        shape, contracted = equation.invars[0].aval.shape, params["dimension_numbers"][0][0]
        return 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, outputs = equation.invars[1].aval, params["dimension_numbers"].rhs_spec[0]
        taps = kernel.size // kernel.shape[outputs]
        # Zeros between the values of a dilated input, as in the gradient of a strided convolution, are no work.
        return 2.0 * equation.outvars[0].aval.size * taps / math.prod(params["lhs_dilation"])
    return None


def _operation(equation: Any, taken: float) -> float:
    name, params = equation.primitive.name, equation.params
    work = product_flops(equation)
    if work is not None:
        return work
    if name in OPAQUE:
        raise ValueError(f"flops: {name} cannot be counted; trace the program with attention=plain")
    # A piece of `diffusion.readout` may be skipped where no token needs it: logits of all tokens count.
    within = float(taken > 0) if name in REPEATED else taken
    inner = [_program(each, within) for each in programs(params)]
    if not any(inner):
        return 0.0
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "cond":
        return taken * max(inner) + (1 - taken) * min(inner)
    if name == "shard_map":
        return sum(inner) * math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
    if name not in ONCE:
        raise ValueError(f"flops: {name} has products inside and an unknown number of turns; write the loop as a scan")
    return sum(inner)


def programs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs inside an equation of a jaxpr, from its parameters."""
    for value in params.values():
        for each in value if isinstance(value, tuple) else (value,):
            if hasattr(each, "eqns"):
                yield each
