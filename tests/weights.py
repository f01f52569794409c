"""Weights for tests, away from the start of training."""

import jax
import jax.numpy as jnp
import numpy as np


def randomized(init, scale=0.2, seed=0):
    """N(0, scale^2) on every array of `init(key)`, around 1 for the scales of norms; made without compiling it.

    Most starts have a zero head, which hides everything behind it.
    """
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        center = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(rng.normal(center, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, jax.random.key(0)))
