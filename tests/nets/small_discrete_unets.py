"""Small discrete U-Nets, with and without runs of equal blocks, and weights for them."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.discrete_unet import UNet

BATCH, HEIGHT, WIDTH, COLORS, DIGITS, BASE, CLASSES = 3, 4, 8, 3, 2, 4, 15
SIZES = dict(multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.5)
NET = UNet((HEIGHT, WIDTH, COLORS), CLASSES, BASE, DIGITS, channels=4, **SIZES)
# Blocks 0 to 2 and 5 to 8 are runs, which store and join feature maps; the two blocks of the middle are not.
RUNS = UNet((4, 4, 1), CLASSES, BASE, DIGITS, channels=4, **SIZES | dict(multipliers=(1,), attention_factors=(1,)))
RUNS = RUNS.clone(res_blocks=3)


def random_params(net, state, without=()):
    """Return random parameters, with zeros for those named in `without`; the initialization is not compiled."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), state)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = rng.normal(0, 0.3, leaf.shape) + ("scale" in name)
        return jnp.asarray(0 * values if any(word in name for word in without) else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)
