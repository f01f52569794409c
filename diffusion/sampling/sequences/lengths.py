"""How long targets are: as the length head says, as it draws, several candidates at once, or as is known."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from diffusion.rng import fold
from diffusion.types import LENGTH_CENTER, EncodedSource, Keys, SequenceCondition

SHORTEST = 2


def predicted(encoded: EncodedSource, classes: Int[Array, "B ..."]) -> Int[Array, "B ..."]:
    """Target lengths of offset classes."""
    source = jnp.sum(encoded.mask, axis=1).reshape(-1, *(1,) * (classes.ndim - 1))
    return source + classes - LENGTH_CENTER


def around(encoded: EncodedSource, beam: int, longest: int) -> Int[Array, "B b"]:
    """The most probable length, and beam - 1 about it: - floor(beam / 2), ..., clipped to 2 .. longest (Difformer)."""
    best = predicted(encoded, jnp.argmax(encoded.lengths, axis=-1))
    return jnp.clip(best[:, None] + (jnp.arange(beam) - beam // 2)[None], SHORTEST, longest)


def likeliest(encoded: EncodedSource, beam: int, longest: int) -> Int[Array, "B b"]:
    """The `beam` most probable lengths, clipped to 2 .. longest (DINOISER)."""
    _, classes = jax.lax.top_k(encoded.lengths, beam)
    return jnp.clip(predicted(encoded, classes), SHORTEST, longest)


def drawn(keys: Keys, encoded: EncodedSource, beam: int, longest: int) -> Int[Array, "B b"]:
    """Lengths drawn from the head, for a model without a source."""

    def draw(key: Key[Array, ""], logits: Float[Array, " C"]) -> Int[Array, " b"]:
        return jax.random.categorical(key, logits, shape=(beam,))

    return jnp.clip(predicted(encoded, jax.vmap(draw)(fold(keys, "length"), encoded.lengths)), SHORTEST, longest)


def mask_of(lengths: Int[Array, " B"], longest: int) -> Bool[Array, "B L"]:
    """The first positions of every example."""
    return jnp.arange(longest)[None] < lengths[:, None]


def candidates(
    keys: Keys, encoded: EncodedSource, lengths: Int[Array, "B b"], seeds: int, longest: int
) -> tuple[Key[Array, " C"], SequenceCondition]:
    """Every length of every source with `seeds` noises: row (i b + j) seeds + s, C = B b seeds in all.

    The noise depends on the example, the length's place in the beam and the seed.
    """
    beam = lengths.shape[1]
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, beam * seeds, axis=0), encoded)
    many = jax.vmap(lambda key: jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(beam * seeds)))(
        fold(keys, "candidate")
    )
    flat = jnp.repeat(lengths.reshape(-1), seeds)
    return many.reshape(-1), SequenceCondition(repeated, mask_of(flat, longest))
