"""Small discrete U-Nets, with and without runs of equal blocks, and weights for them."""

import jax

from diffusion.nets.discrete_unet import UNet
from tests.weights import random_like

BATCH, HEIGHT, WIDTH, COLORS, DIGITS, BASE, CLASSES = 3, 4, 8, 3, 2, 4, 15
SIZES = dict(multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.5)
NET = UNet((HEIGHT, WIDTH, COLORS), CLASSES, BASE, DIGITS, channels=4, **SIZES)
# Blocks 0 to 2 and 5 to 8 are runs, which store and join feature maps; the two blocks of the middle are not.
RUNS = UNet((4, 4, 1), CLASSES, BASE, DIGITS, channels=4, **SIZES | dict(multipliers=(1,), attention_factors=(1,)))
RUNS = RUNS.clone(res_blocks=3)


def random_params(net, state, without=()):
    """Return random parameters, with zeros for those named in `without`; the initialization is not compiled."""
    return random_like(jax.eval_shape(net.init, jax.random.key(0), state), 0.3, without=without)
