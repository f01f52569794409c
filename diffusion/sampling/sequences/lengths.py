"""Lengths of targets: those around the most probable one of the length head, and candidates of several lengths."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from diffusion.rng import fold
from diffusion.types import LENGTH_CENTER, EncodedSource, Keys, SequenceCondition

SHORTEST = 2


def around(encoded: EncodedSource, beam: int, longest: int) -> Int[Array, "B b"]:
    """Return `beam` consecutive lengths from best - floor(beam / 2), clipped to 2 .. longest (Difformer).

    The best is source length + class - LENGTH_CENTER for the most probable class of the length head. DINOISER's rule,
    the `beam` most probable classes, is not offered.
    """
    best = jnp.sum(encoded.mask, axis=1) + jnp.argmax(encoded.lengths, axis=-1) - LENGTH_CENTER
    return jnp.clip(best[:, None] + (jnp.arange(beam) - beam // 2)[None], SHORTEST, longest)


def length_mask(lengths: Int[Array, " B"], longest: int) -> Bool[Array, "B L"]:
    """Return the mask of the first `lengths` positions of every example."""
    return jnp.arange(longest)[None] < lengths[:, None]


def candidates(
    keys: Keys, encoded: EncodedSource, lengths: Int[Array, "B b"], seeds: int, longest: int
) -> tuple[Key[Array, " C"], SequenceCondition]:
    """Return keys and conditioning of C = B b seeds candidates: each length of each source with `seeds` keys.

    Row (i b + j) seeds + s is source i with its length j and seed s. Its key depends on the key of the source, j and s.
    """
    beam = lengths.shape[1]
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam * seeds, axis=0), encoded)
    candidate_keys = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(beam * seeds)))(
        fold(keys, "candidate")
    )
    flat = jnp.repeat(lengths.reshape(-1), seeds)
    return candidate_keys.reshape(-1), SequenceCondition(repeated, length_mask(flat, longest))
