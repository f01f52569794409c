"""The multilayer perceptron of the two-dimensional example: inputs, dropout, and operations."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets import mlp
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


def test_perceptron_operations_agree_with_its_matrices():
    state = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(TOY.clone(time=False).init, jax.random.key(0), state)["params"]
    kernels = sum(leaf.size for name, part in shapes.items() if isinstance(part, dict) for leaf in part.values())
    vectors = 2 * 16 + 2 * 16 + 18  # biases and scales of two layers, and of the head
    assert mlp.flops_per_example(TOY) == 2 * (kernels - vectors)
