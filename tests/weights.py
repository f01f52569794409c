"""Random weights for tests."""

import jax
import jax.numpy as jnp
import numpy as np


def randomized(init, scale=0.2, seed=0):
    """Return arrays of the shapes of `init(key)` from N(0, scale^2), or N(1, scale^2) for the scales of norms.

    Unlike most initializations they have no zero head, which would hide errors before it; `init` is not compiled.
    """
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        center = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(rng.normal(center, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, jax.eval_shape(init, jax.random.key(0)))
