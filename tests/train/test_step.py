"""The training step: micro-batches, devices, pmap, sweeps, weight decay, and moving averages."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.rng import draws
from diffusion.train.mesh import batch_sharding, check_batch, leaf_spec, make_mesh, put_batch, replicated
from diffusion.train.optimizer import adamw, learning_rate
from diffusion.train.state import abstract_state, ema_decay, init_state, new_state
from diffusion.train.step import gradients, make_step
from tests.train.conftest import BATCH, batch_at

ROOT = jax.random.key(0)


@pytest.fixture(scope="module")
def whole(objective, params):
    """Return the gradient and the metrics of one whole batch."""
    run = jax.jit(functools.partial(gradients, objective, accumulate=1))
    return run(params, batch_at(0), draws(ROOT, "train", 0, BATCH))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_leave_gradient_and_loss_unchanged(objective, params, whole, accumulate):
    """Law 7, with dropout on and padding in one of the micro-batches."""
    run = jax.jit(functools.partial(gradients, objective, accumulate=accumulate))
    grads, metrics = run(params, batch_at(0), draws(ROOT, "train", 0, BATCH))
    chex.assert_trees_all_close(grads, whole[0], rtol=2e-4, atol=1e-6)
    chex.assert_trees_all_close(metrics, whole[1], rtol=1e-5)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 1e-3


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_the_step_is_the_same_on_every_mesh(objective, init, optimizer, axes):
    results = []
    for mesh in (make_mesh(1, 1, 1, jax.devices()[:1]), make_mesh(*axes)):
        abstract = abstract_state(init, optimizer, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        step = jax.jit(
            make_step(objective, optimizer),
            in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
            out_shardings=(shardings, replicated(mesh)),
        )
        with jax.set_mesh(mesh):
            state = init_state(init, optimizer, mesh, jax.random.key(0))
            for index in range(2):
                state, metrics = step(state, put_batch(batch_at(index), mesh), ROOT)
        results.append(jax.device_get((state.params, state.ema, metrics)))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=2e-5)


def test_large_leaves_are_sharded_on_their_largest_axis_and_small_ones_replicated():
    mesh = make_mesh(1, 4, 2)
    assert leaf_spec((64, 256, 128), mesh) == jax.sharding.PartitionSpec(None, "fsdp", "model")
    assert leaf_spec((1000003, 4), mesh) == jax.sharding.PartitionSpec(None, "fsdp")
    assert leaf_spec((16, 16), mesh) == jax.sharding.PartitionSpec()


def test_the_pure_step_also_runs_under_pmap(objective, params, whole):
    """The sum of the gradients of two devices is that of the whole batch."""
    noise = draws(ROOT, "train", 0, BATCH)
    halves = jax.tree.map(lambda rows: rows.reshape(2, BATCH // 2, *rows.shape[1:]), (batch_at(0), noise))

    def half(params, batch, noise):
        (_, metrics), grads = jax.value_and_grad(objective, has_aux=True)(params, batch, noise)
        total, count = jax.lax.psum((grads, metrics["loss"][1]), "devices")
        return jax.tree.map(lambda grad: grad / count, total)

    grads = jax.pmap(half, axis_name="devices", in_axes=(None, 0, 0), devices=jax.devices()[:2])(params, *halves)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[0], grads), whole[0], rtol=2e-4, atol=1e-6)


def test_a_sweep_of_learning_rates_compiles_once(objective, params):
    traces = []

    def counted(*inputs):
        traces.append(1)
        return objective(*inputs)

    results = []
    step = None
    for peak in (1e-3, 1e-1):
        optimizer = adamw(peak=peak, warmup=1, steps=10, clip=peak * 100)
        step = step or jax.jit(make_step(counted, optimizer))
        state, _ = step(new_state(params, optimizer), batch_at(0), ROOT)
        results.append(state.params)
    assert len(traces) == 1
    moved = [
        max(float(jnp.abs(new - old).max()) for new, old in zip(*map(jax.tree.leaves, (tree, params)), strict=True))
        for tree in results
    ]
    np.testing.assert_allclose(
        moved, [1e-3, 1e-1], rtol=1e-2
    )  # the first step of Adam has the size of the learning rate


def test_learning_rates():
    rate = functools.partial(learning_rate, peak=2.0, warmup=4.0, steps=12.0, floor=0.1)
    steps = jnp.arange(14)
    constant = jax.vmap(functools.partial(rate, decay="constant"))(steps)
    np.testing.assert_allclose(constant[:5], [0.5, 1.0, 1.5, 2.0, 2.0])
    cosine = jax.vmap(functools.partial(rate, decay="cosine"))(steps)
    np.testing.assert_allclose(cosine[jnp.array([4, 8, 12, 13])], [2.0, 1.1, 0.2, 0.2], rtol=1e-6)
    root = jax.vmap(functools.partial(rate, decay="inverse_sqrt"))(steps)
    np.testing.assert_allclose(root[jnp.array([3, 7])], [2.0, 2.0 * (4 / 8) ** 0.5], rtol=1e-6)


def test_decay_of_the_moving_average():
    np.testing.assert_allclose(ema_decay(0.9999, jnp.array([0, 90, 10**6])), [0.1, 0.91, 0.9999], rtol=1e-6)


def test_weight_decay_touches_kernels_and_tables_only(params):
    optimizer = adamw(peak=1.0, warmup=1, steps=10, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(optimizer.update)(zero, optimizer.init(params), params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path)
        leaf = functools.reduce(lambda tree, key: tree[key.key], path, params)
        expected = -0.5 * leaf if "kernel" in name or "embedding" in name else 0 * leaf
        np.testing.assert_allclose(update, expected, atol=1e-6)


@pytest.mark.parametrize("axes", [(3, 1, 1), (0, 1, 1), (-1, -1, 1), (5, -1, 1)])
def test_invalid_meshes_raise(axes):
    with pytest.raises(ValueError, match="mesh"):
        make_mesh(*axes)


def test_a_batch_that_does_not_divide_names_the_next_that_does():
    with pytest.raises(ValueError, match=r"train\.batch: 12 .* 16$"):
        check_batch(12, make_mesh(8, 1, 1))
