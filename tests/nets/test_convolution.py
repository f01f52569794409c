"""The convolution with a custom gradient, compared with the gradient of JAX."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.sd.layers import CHANNELS_LAST, convolve


def plain(x, kernel, stride):
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=CHANNELS_LAST)


@pytest.mark.parametrize(("height", "width", "size", "stride"), [(6, 5, 3, 1), (7, 8, 5, 2), (7, 8, 3, 3)])
def test_gradients_are_those_of_the_plain_convolution(height, width, size, stride):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, height, width, 3), (size, size, 3, 4)))
    slope = rng.normal(size=(2, -(-height // stride), -(-width // stride), 4)).astype(np.float32)

    @jax.jit
    def both(x, kernel, slope):
        pulls = [jax.vjp(lambda x, kernel, one=one: one(x, kernel, stride), x, kernel) for one in (plain, convolve)]
        return [(result, *pull(slope)) for result, pull in pulls]

    for expected, found in zip(*both(x, kernel, slope), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradient_in_a_loop_keeps_the_order_of_kernel_channels():
    """The fast kernels of XLA on CPU need channels as (in, out), and loops do not reorder them."""

    def orders(convolution):
        def step(x, _):
            return jax.grad(lambda x: jnp.sum(convolution(x, jnp.ones((3, 3, 4, 4)), 1) ** 2))(x), None

        program = jax.jit(lambda x: jax.lax.scan(step, x, None, length=2)[0]).lower(jnp.ones((2, 4, 4, 4)))
        return set(re.findall(r"dim_numbers = \[b, 0, 1, f\]x\[(.*?)\]", program.as_text()))

    assert orders(plain) == {"0, 1, i, o", "0, 1, o, i"}
    assert orders(convolve) == {"0, 1, i, o"}
