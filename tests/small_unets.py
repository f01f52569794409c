"""A small U-Net of the kind of Stable Diffusion, with random inputs, weights and a compiled program."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.sd.unet import AddedConditioning, UNet
from tests.weights import randomized

SMALL = UNet(
    channels=(8, 12, 16),
    transformer_layers=(0, 1, 0),
    heads=(1, 3, 2),
    context_width=5,
    time_width=10,
    layers=1,
    in_channels=3,
    out_channels=3,
    groups=4,
)


def inputs(net, height=8, width=4, tokens=3, batch=2):
    """Random images, times, contexts and added conditioning."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    time = jnp.asarray(rng.uniform(0, 999, batch), jnp.float32)
    added = None
    if net.addition is not None:
        pooled = normal(batch, net.addition[1])
        added = AddedConditioning(pooled, jnp.asarray(rng.integers(0, 1024, (batch, 6)), jnp.float32))
    return normal(batch, height, width, net.in_channels), time, normal(batch, tokens, net.context_width), added


@cache
def small_params():
    return randomized(lambda key: SMALL.init(key, *inputs(SMALL)))


apply = jax.jit(SMALL.apply)
