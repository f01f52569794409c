"""The multilayer perceptron of the two-dimensional example: inputs, dropout, and operations."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.mlp import Mlp
from tests.nets.small_discrete_unets import random_params

TOY = Mlp(positions=2, classes=9, base=3, digits=2, hidden=16, layers=2, time=True)


def test_perceptron_reads_every_subtoken_and_the_time():
    state = jnp.array([[0, 1, 2, 3], [3, 3, 3, 3]])
    initial = jax.jit(TOY.init)(jax.random.key(0), state)
    assert (TOY.apply(initial, state) == 0).all()
    params, apply = random_params(TOY, state), jax.jit(TOY.apply)
    first = apply(params, state, jnp.zeros(2))
    assert first.shape == (2, 2, 9)
    np.testing.assert_allclose(TOY.apply(params, state), first, atol=1e-5)
    for digit in range(4):
        moved = apply(params, state.at[:, digit].set(1 + state[:, digit] % 2), jnp.zeros(2))
        assert (np.abs(moved - first).max((1, 2)) > 1e-3)[0 if digit != 1 else 1]
    assert np.abs(apply(params, state, jnp.ones(2)) - first).max() > 1e-3
    keys = jax.random.split(jax.random.key(3), 2)
    noisy = TOY.apply(params, state, keys=keys)
    np.testing.assert_allclose(TOY.apply(params, state[1:], keys=keys[1:]), noisy[1:], atol=1e-5)
    assert np.abs(noisy - first).max() > 1e-2
