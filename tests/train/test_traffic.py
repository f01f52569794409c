"""Estimated traffic and rooflines against closed forms of products, convolutions, loops and attention."""

import jax
import jax.numpy as jnp
import pytest

from diffusion.nets.attention import plain
from diffusion.train.flops import count
from diffusion.train.hardware import Peak
from diffusion.train.traffic import Roofline, flops, operations, roofline, traffic
from tests.checks import refused

HALF = jnp.bfloat16


def shape(*axes, dtype=HALF):
    return jax.ShapeDtypeStruct(axes, dtype)


def test_products_read_operands_and_write_results_once_in_their_types():
    x, y = shape(3, 4), shape(4, 5)
    assert traffic(operations(jnp.matmul, x, y)) == 2 * (12 + 20 + 15)
    program = operations(lambda x, y: jnp.exp(jnp.matmul(x, y, preferred_element_type=jnp.float32)).sum(), x, y)
    assert traffic(program) == 2 * (12 + 20) + 4 * 15, "exponentials and sums are fused"
    assert [each.wide for each in program] == [False]
    (wide,) = operations(jnp.matmul, shape(3, 4, dtype=jnp.float32), shape(4, 5, dtype=jnp.float32))
    assert wide.wide and wide.bytes == 4 * (12 + 20 + 15)

    def loop(x, y):
        return jax.lax.scan(lambda x, _: (x @ y, None), x, length=7)[0]

    program = operations(loop, shape(3, 4), shape(4, 4))
    assert traffic(program) == 7 * 2 * (12 + 16 + 12) and flops(program) == count(loop, shape(3, 4), shape(4, 4))
    assert traffic(operations(lambda x, y: (x @ y, x)[1], x, y)) == 0, "nothing reads the product"


def test_convolutions_read_values_and_no_zeros_between_them():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    x, kernel = shape(2, 8, 12, 6), shape(3, 3, 6, 10)
    inputs, taps, outputs = 2 * 8 * 12 * 6, 9 * 6 * 10, 2 * 4 * 6 * 10
    assert traffic(operations(convolve, x, kernel)) == 2 * (inputs + taps + outputs)

    def gradient(x, kernel, cotangent):
        return jax.vjp(lambda x: convolve(x, kernel), x)[1](cotangent)

    program = operations(gradient, x, kernel, shape(2, 4, 6, 10))
    assert traffic(program) == 2 * (inputs + taps + outputs) and flops(program) == count(convolve, x, kernel)


def test_scores_of_attention_stay_on_chip_in_both_directions():
    batch, length, heads, width = 2, 64, 3, 8
    x = shape(batch, length, heads, width)
    each, scores = 2 * batch * length * heads * width, batch * heads * length**2
    assert traffic(operations(plain, x, x, x)) == 4 * each
    # Scores are written in float32, and read as weights in bfloat16.
    assert traffic(operations(plain, x, x, x, scores=True)) == 4 * each + (4 + 2) * scores
    back = operations(lambda *inputs: jax.vjp(plain, *inputs[:3])[1](inputs[3]), x, x, x, x)
    products = 5  # that of the values drops out
    assert len(back) == products and traffic(back) < (2 * products + 4) * each
    assert traffic(operations(jnp.matmul, shape(2, 8, 8), shape(2, 8, 8))) == 2 * 3 * 2 * 64, "others count"


def test_roofline_takes_the_slower_of_compute_and_memory_of_each_operation():
    x, big = shape(1, 64), shape(64, 64)
    program = operations(lambda x, y: (x @ y, y @ y), x, big)
    peak = Peak(flops=1000.0, bandwidth=100.0, memory=0.0, link=0.0)
    compute = [2 * 64**2 / 1000, 2 * 64**3 / 1000]
    memory = [2 * (64 + 64**2 + 64) / 100, 2 * 3 * 64**2 / 100]
    assert compute[0] < memory[0] and compute[1] > memory[1]
    found = roofline(program, peak)
    assert found == pytest.approx(Roofline(memory[0] + compute[1], compute[1], sum(compute), sum(memory)))
    assert found.whole == pytest.approx(sum(compute)) and found.whole < found.seconds
    wide = operations(jnp.matmul, shape(64, 64, dtype=jnp.float32), shape(64, 64, dtype=jnp.float32))
    assert roofline(wide, peak, wide=0.5).compute == pytest.approx(2 * compute[1])


def test_what_cannot_be_estimated_raises():
    x = shape(4, 4)
    with refused("traffic: cholesky cannot be estimated"):
        operations(jnp.linalg.cholesky, shape(4, 4, dtype=jnp.float32))
    with refused("traffic: cond has products inside"):
        operations(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), x)
