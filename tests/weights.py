"""Random weights and keys for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.rng import example_keys


def random_like(shapes, scale=0.2, seed=0, without=()):
    """Return arrays of these shapes from N(0, scale^2), or N(1, scale^2) for the scales of norms.

    Those whose path has a word of `without` are zero.
    """
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = rng.normal(1.0 if "scale" in name else 0.0, scale, leaf.shape)
        return jnp.asarray(0 * values if any(word in name for word in without) else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def randomized(init, scale=0.2, seed=0):
    """Return random arrays of the shapes of `init(key)`.

    Unlike most initializations they have no zero head, which would hide errors before it; `init` is not compiled.
    """
    return random_like(jax.eval_shape(init, jax.random.key(0)), scale, seed)


def keys_of(examples, seed=0):
    """Return the keys of a number of examples, or of the examples with these indices."""
    indices = jnp.arange(examples) if isinstance(examples, int) else jnp.asarray(examples)
    return example_keys(jax.random.key(seed), indices)
