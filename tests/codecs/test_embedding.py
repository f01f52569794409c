"""Worked examples of the embedding codec."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.codecs.embedding import EmbeddingCodec
from diffusion.objectives.embedding import lowest_time
from tests.checks import refused

PAIR = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
TABLE = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def codec(vocabulary, scale="unit"):
    return EmbeddingCodec(lambda params: params, vocabulary, scale)


def test_logits_are_inner_products_with_the_rows():
    """Rows sqrt(2) (1, 0) and sqrt(2) (-1, 0) and estimate (sqrt(2), 0) give logits 2 and -2."""

    @jax.jit
    def results(table, estimate):
        # Without normalization latents are sqrt(d) times the table, and logits are products with the table itself.
        scaled = codec(2, "scaled")
        return codec(2).logits(table, estimate), scaled.encode(table, jnp.array([[1]])), scaled.logits(table, estimate)

    unit, latents, logits = results(3 * PAIR, np.array([[[2**0.5, 0.0]]], np.float32))
    np.testing.assert_allclose(unit, [[[2.0, -2.0]]], rtol=1e-6)
    np.testing.assert_allclose(latents, [[[-3 * 2**0.5, 0.0]]], rtol=1e-6)
    np.testing.assert_allclose(logits, [[[3 * 2**0.5, -3 * 2**0.5]]], rtol=1e-6)


def test_latents_round_to_the_nearest_of_the_tokens():
    tokens = np.arange(8)[None]

    @jax.jit
    def results(table):
        clean = codec(8).encode(table, tokens)
        clamped = codec(8).clamp(table, clean + 1e-3)
        return clean, clamped, codec(8).decode(table, clean), codec(7).decode(table, clean)

    clean, clamped, every, without_last = results(TABLE)
    np.testing.assert_allclose((clean**2).mean(axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(clamped, clean)
    np.testing.assert_array_equal(every, tokens)
    # The last row is not a token, and nothing is rounded to it.
    np.testing.assert_array_equal(without_last[0, :7], tokens[0, :7])
    assert without_last[0, 7] < 7


def test_distance_of_neighbors_and_lowest_time():
    """Rows at (+-sqrt(2), 0): v = 8 / 2 = 4, t_min = sqrt(4 / 5), and sqrt(5 / 6) with v + 1 in place of v."""
    padded = np.concatenate([PAIR, np.array([[1.0, 1e-3]], np.float32)])  # a row that is not a token is no neighbor

    @jax.jit
    def results(table):
        times = [lowest_time(codec(2), table, floor) for floor in ("clipped", "clipped_s", "none")]
        return codec(2).neighbor_distance(table), *times

    np.testing.assert_allclose(results(padded), [4, 0.894427191, 0.912870929, 0], rtol=1e-6)


def test_distance_of_neighbors_and_mean_cosine_in_any_chunks():
    """The mean cosine of a collapsed table is near 1."""
    chunks = (1, 3, 7, 100)

    @jax.jit
    def results(table):
        distances = [codec(7).neighbor_distance(table, chunk) for chunk in chunks]
        return distances, codec(7).mean_cosine(table), codec(7).mean_cosine(table + 100.0)

    distances, cosine, collapsed = results(TABLE)
    unit = TABLE[:7] / np.linalg.norm(TABLE[:7], axis=1, keepdims=True)
    squares = 3 * ((unit[:, None] - unit[None]) ** 2).sum(-1) + 1e9 * np.eye(7)
    np.testing.assert_allclose(distances, [squares.min(1).mean() / 3] * len(chunks), rtol=1e-4)
    assert float(cosine) == pytest.approx((unit @ unit.T)[~np.eye(7, dtype=bool)].mean(), abs=1e-5)
    assert float(collapsed) > 0.99


def test_unknown_scales_are_rejected():
    with refused(r"codec.scale: unknown 'big'; known: unit, scaled"):
        codec(2, "big")
