"""Worked examples of the embedding codec."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.embedding import lowest_time

PAIR = jnp.array([[1.0, 0.0], [-1.0, 0.0]])


def codec(vocabulary, scale="unit"):
    return EmbeddingCodec(lambda params: params, vocabulary, scale)


def random_table(rows=7, width=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(rows, width)), jnp.float32)


def test_logits_are_inner_products_with_the_rows():
    """Rows sqrt(2) (1, 0) and sqrt(2) (-1, 0) and estimate (sqrt(2), 0) give logits 2 and -2."""
    estimate = jnp.array([[[2**0.5, 0.0]]])
    np.testing.assert_allclose(codec(2).logits(3 * PAIR, estimate), [[[2.0, -2.0]]], rtol=1e-6)
    # Without normalization latents are sqrt(d) times the table, and logits are products with the table itself.
    scaled = codec(2, "scaled")
    np.testing.assert_allclose(scaled.encode(3 * PAIR, jnp.array([[1]])), [[[-3 * 2**0.5, 0.0]]], rtol=1e-6)
    np.testing.assert_allclose(scaled.logits(3 * PAIR, estimate), [[[3 * 2**0.5, -3 * 2**0.5]]], rtol=1e-6)


def test_normalized_rows_have_unit_mean_square_and_decode_to_their_tokens():
    table, tokens = random_table(), jnp.arange(6)[None]
    for scale in ("unit", "scaled"):
        clean = codec(6, scale).encode(table, tokens)
        if scale == "unit":
            np.testing.assert_allclose(jnp.mean(clean**2, axis=-1), 1, rtol=1e-5)
            np.testing.assert_array_equal(codec(6, scale).decode(table, clean), tokens)
        nearest = codec(6, scale).clamp(table, clean + 1e-3)
        assert any(np.allclose(nearest[0, 0], row) for row in codec(6, scale).rows(table))


def test_latents_are_not_rounded_to_rows_that_are_not_tokens():
    table = random_table()
    last_row = codec(7).encode(table, jnp.array([[6]]))
    assert int(codec(7).decode(table, last_row)[0, 0]) == 6
    assert int(codec(6).decode(table, last_row)[0, 0]) != 6


def test_distance_of_neighbors_and_lowest_time():
    """Rows at (+-sqrt(2), 0): v = 8 / 2 = 4, t_min = sqrt(4 / 5), and sqrt(5 / 6) with v + 1 in place of v."""
    padded = jnp.concatenate([PAIR, jnp.array([[1.0, 1e-3]])])  # a row that is not a token is not a neighbor
    assert float(codec(2).neighbor_distance(padded)) == pytest.approx(4.0, rel=1e-6)
    assert float(lowest_time(codec(2), padded, "clipped")) == pytest.approx(0.894427191, rel=1e-6)
    assert float(lowest_time(codec(2), padded, "clipped_s")) == pytest.approx(0.912870929, rel=1e-6)
    assert float(lowest_time(codec(2), padded, "none")) == 0


@pytest.mark.parametrize("chunk", ["1", "3", "7", "100"])
def test_distance_of_neighbors_does_not_depend_on_the_chunk_size(chunk):
    table = random_table(8)
    rows = np.asarray(codec(7).rows(table))[:7]
    distance = ((rows[:, None] - rows[None]) ** 2).sum(-1) + 1e9 * np.eye(7)
    result = codec(7).neighbor_distance(table, int(chunk))
    assert float(result) == pytest.approx(distance.min(1).mean() / 3, rel=1e-4)


def test_mean_cosine_detects_a_collapsed_table():
    table = random_table(8)
    unit = np.asarray(table)[:7] / np.linalg.norm(np.asarray(table)[:7], axis=1, keepdims=True)
    expected = (unit @ unit.T)[~np.eye(7, dtype=bool)].mean()
    assert float(codec(7).mean_cosine(table)) == pytest.approx(expected, abs=1e-5)
    assert float(codec(7).mean_cosine(table + 100.0)) > 0.99


def test_unknown_scales_are_rejected():
    with pytest.raises(ValueError, match=r"codec.scale: unknown 'big'; known: unit, scaled"):
        codec(2, "big")
