"""Layers, compared with their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.layers import LayerNorm, dropout, dropout_seeds, rotary_table, rotate, sinusoids


def test_layer_norm_formula():
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 3, 8)).astype(np.float32)
    scale = np.linspace(0.5, 2.0, 8, dtype=np.float32)
    y = LayerNorm().apply({"params": {"scale": scale}}, jnp.asarray(x))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_rotary_products_depend_on_distance_only():
    query, key = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    table = rotary_table(jnp.arange(9), 6)
    rows = [rotate(jnp.tile(x, (1, 9, 1, 1)), table)[0, :, 0] for x in (query, key)]
    products = np.asarray(rows[0] @ rows[1].T)
    np.testing.assert_allclose(products[2, 5], products[4, 7], atol=1e-5)
    np.testing.assert_allclose(products[3, 3], query @ key, atol=1e-5)
    assert abs(products[2, 5] - products[2, 6]) > 1e-3


def test_sinusoids_are_cosines_then_sines():
    for time, width, tolerance in ((1.5, 6, 1e-6), (321.5, 320, 2e-4)):
        value = sinusoids(jnp.array([0.0, time]), width)
        angles = time * 10000.0 ** (-np.arange(width // 2) / (width // 2))
        np.testing.assert_array_equal(value[0], np.repeat([1, 0], width // 2))
        np.testing.assert_allclose(value[1], np.concatenate([np.cos(angles), np.sin(angles)]), atol=tolerance)


def test_dropout_rate_scale_and_independence():
    keys = jax.random.split(jax.random.key(0), 16)
    seeds = dropout_seeds(keys, layers=2)
    ones = jnp.ones((16, 64, 64))
    first, second = (np.asarray(dropout(ones, seeds[0, :, site], 0.1)) for site in (0, 1))
    later = np.asarray(dropout(ones, seeds[1, :, 0], 0.1))
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.9)}
    # 65,536 Bernoulli(0.1) draws: standard error 0.0012.
    for mask in (first == 0, second == 0, later == 0):
        assert abs(mask.mean() - 0.1) < 5e-3
        assert np.abs(mask.mean((1, 2)) - 0.1).max() < 0.025
    dropped = first == 0
    pairs = [(dropped, second == 0), (dropped, later == 0), (dropped[:-1], dropped[1:])]
    pairs += [(dropped[:, :, :-1], dropped[:, :, 1:]), (dropped[:, :-1], dropped[:, 1:])]
    for one, other in pairs:
        assert abs((one & other).mean() - 0.01) < 2e-3, "masks are independent"
