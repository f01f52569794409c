"""Lengths of targets: those around the most probable one of the length head, and candidates of several lengths."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from diffusion.rng import example_keys, fold
from diffusion.types import LENGTH_CENTER, EncodedSource, Keys, SequenceCondition

SHORTEST = 2


def around(encoded: EncodedSource, beam: int, longest: int) -> Int[Array, "B b"]:
    """Return `beam` consecutive lengths from best - floor(beam / 2), clipped to 2 .. longest (Difformer).

    The best is source length + class - LENGTH_CENTER for the most probable class of the length head. DINOISER's rule,
    the `beam` most probable classes, is not offered.
    """
    best = jnp.sum(encoded.mask, axis=1) + jnp.argmax(encoded.lengths, axis=-1) - LENGTH_CENTER
    return jnp.clip(best[:, None] + (jnp.arange(beam) - beam // 2)[None], SHORTEST, longest)


def candidates(
    keys: Keys, encoded: EncodedSource, lengths: Int[Array, "B b"], seeds: int, longest: int
) -> tuple[Key[Array, " C"], SequenceCondition]:
    """Return keys and conditioning of C = B b seeds candidates: each length of each source with `seeds` keys.

    Row (i b + j) seeds + s is source i with its length j and seed s. Its key depends on the key of the source, j and s.
    """
    beam = lengths.shape[1]
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam * seeds, axis=0), encoded)
    candidate_keys = jax.vmap(example_keys, (0, None))(fold(keys, "candidate"), jnp.arange(beam * seeds)).reshape(-1)
    mask = jnp.arange(longest)[None] < jnp.repeat(lengths.reshape(-1), seeds)[:, None]
    return candidate_keys, SequenceCondition(repeated, mask)
