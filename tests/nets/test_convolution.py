"""The convolution with a custom gradient, compared with the gradient of JAX."""

import re

import jax
import jax.numpy as jnp
import pytest

from diffusion.nets.sd.layers import CHANNELS_LAST, convolve


def plain(x, kernel, stride):
    border = kernel.shape[0] // 2
    padding = [(border, border)] * 2
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=CHANNELS_LAST)


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"), [(6, 5, 3, 1), (6, 5, 3, 2), (7, 8, 5, 2), (7, 8, 3, 3)]
)
def test_gradients_are_those_of_the_plain_convolution(height, width, size, stride):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, 3))
    kernel = jax.random.normal(keys[1], (size, size, 3, 4))
    expected, of_plain = jax.vjp(lambda x, kernel: plain(x, kernel, stride), x, kernel)
    result, of_convolve = jax.vjp(lambda x, kernel: convolve(x, kernel, stride), x, kernel)
    assert jnp.array_equal(result, expected)
    slope = jax.random.normal(keys[2], result.shape)
    for mine, theirs in zip(of_convolve(slope), of_plain(slope), strict=True):
        assert mine.shape == theirs.shape
        assert jnp.allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_gradient_in_a_loop_keeps_the_order_of_kernel_channels():
    """The fast kernels of XLA on CPU need channels as (in, out), and loops do not reorder them."""

    def orders(convolution):
        def step(x, _):
            return jax.grad(lambda x: jnp.sum(convolution(x, jnp.ones((3, 3, 4, 4)), 1) ** 2))(x), None

        program = jax.jit(lambda x: jax.lax.scan(step, x, None, length=2)[0]).lower(jnp.ones((2, 4, 4, 4)))
        return set(re.findall(r"dim_numbers = \[b, 0, 1, f\]x\[(.*?)\]", program.as_text()))

    assert orders(plain) == {"0, 1, i, o", "0, 1, o, i"}
    assert orders(convolve) == {"0, 1, i, o"}
