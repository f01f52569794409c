"""Small discrete U-Nets, with and without runs of equal blocks, and weights for them."""

import jax

from diffusion.nets.discrete_unet import UNet
from tests.weights import randomized

BATCH = 3
SIZES = dict(multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.5)
NET = UNet(shape=(4, 8, 3), classes=15, base=4, digits=2, channels=4, **SIZES)
# Blocks 0 to 2 and 5 to 8 are runs, which store and join feature maps; the two blocks of the middle are not.
RUNS = NET.clone(shape=(4, 4, 1), multipliers=(1,), attention_factors=(1,), res_blocks=3)
KEYS = jax.random.split(jax.random.key(3), BATCH)


def random_state(net):
    """Return a batch of random sub-tokens and masks."""
    height, width, colors = net.shape
    return jax.random.randint(jax.random.key(1), (BATCH, height * width * colors * net.digits), 0, net.base + 1)


def random_params(net):
    return randomized(lambda key: net.init(key, random_state(net)), 0.3)
