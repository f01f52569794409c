"""The multilayer perceptron of the two-dimensional example: inputs, dropout, and operations."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.mlp import Mlp
from tests.weights import randomized

TOY = Mlp(positions=2, classes=9, base=3, digits=2, hidden=16, layers=2, time=True)


def test_perceptron_reads_every_subtoken_and_the_time():
    state, sigma = jnp.array([[0, 1, 2, 3], [3, 3, 3, 3]]), jnp.zeros(2)
    assert not np.any(TOY.init(jax.random.key(0), state)["params"]["head"]["kernel"])
    params, apply = randomized(lambda key: TOY.init(key, state), 0.3), jax.jit(TOY.apply)
    first = apply(params, state, sigma)
    assert first.shape == (2, 2, 9)
    np.testing.assert_allclose(apply(params, state), first, atol=1e-5)
    for digit in range(4):
        moved = apply(params, state.at[:, digit].set(1 + state[:, digit] % 2), sigma)
        assert (np.abs(moved - first).max((1, 2)) > 1e-3)[0 if digit != 1 else 1]
    assert np.abs(apply(params, state, sigma + 1) - first).max() > 1e-3
    keys = jax.random.split(jax.random.key(3), 2)
    noisy = apply(params, state, keys=keys)
    np.testing.assert_allclose(apply(params, state[::-1], keys=keys[::-1]), noisy[::-1], atol=1e-5)
    assert np.abs(noisy - first).max() > 1e-2
