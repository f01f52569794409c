"""The training step: micro-batches, devices, sweeps, weight decay, and moving averages."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.rng import draws
from diffusion.train.mesh import (
    batch_sharding,
    check_batch,
    leaf_spec,
    make_mesh,
    put_batch,
    replicated,
    state_shardings,
)
from diffusion.train.optimizer import adamw, learning_rate
from diffusion.train.state import ema_decay, new_state
from diffusion.train.step import gradients, make_step
from tests.checks import refused
from tests.train.conftest import BATCH, batch_at

ROOT = jax.random.key(0)


@pytest.fixture(scope="module")
def whole(objective, params):
    """Return the gradient and the metrics of one whole batch."""
    run = jax.jit(functools.partial(gradients, objective, accumulate=1))
    return run(params, batch_at(0), draws(ROOT, "train", 0, BATCH))


def test_micro_batches_leave_gradient_and_loss_unchanged(objective, params, whole):
    """Law 7, with dropout on and padding in one of the micro-batches."""
    run = jax.jit(functools.partial(gradients, objective, accumulate=4))
    grads, metrics = run(params, batch_at(0), draws(ROOT, "train", 0, BATCH))
    chex.assert_trees_all_close(grads, whole[0], rtol=2e-4, atol=1e-6)
    chex.assert_trees_all_close(metrics, whole[1], rtol=1e-5)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 1e-3


def two_steps(objective, params, optimizer, mesh):
    state = new_state(params, optimizer)
    shardings = state_shardings(state, mesh)
    step = jax.jit(
        make_step(objective, optimizer),
        in_shardings=(shardings, batch_sharding(mesh), replicated(mesh)),
        out_shardings=(shardings, replicated(mesh)),
    )
    with jax.set_mesh(mesh):
        state = jax.device_put(state, shardings)
        for index in range(2):
            state, metrics = step(state, put_batch(batch_at(index), mesh), ROOT)
    return jax.device_get((state.params, state.ema, metrics))


@pytest.fixture(scope="module")
def on_one_device(objective, params, optimizer):
    return two_steps(objective, params, optimizer, make_mesh(1, 1, 1, jax.devices()[:1]))


@pytest.mark.parametrize("axes", [(8, 1, 1), (2, 4, 1), (2, 2, 2)])
def test_the_step_is_the_same_on_every_mesh(objective, params, optimizer, on_one_device, axes):
    result = two_steps(objective, params, optimizer, make_mesh(*axes))
    chex.assert_trees_all_close(result, on_one_device, rtol=1e-4, atol=2e-5)


def test_large_leaves_are_sharded_on_their_largest_axis_and_small_ones_replicated():
    mesh, spec = make_mesh(1, 4, 2), jax.sharding.PartitionSpec
    assert leaf_spec((64, 256, 128), mesh) == spec(None, "fsdp", "model")
    assert leaf_spec((1000003, 4), mesh) == spec(None, "fsdp")
    assert leaf_spec((16, 16), mesh) == spec()


def test_a_sweep_of_learning_rates_compiles_once(objective, params):
    """The first step of Adam has the size of the learning rate."""
    rates = 1e-3, 1e-1
    first, second = (adamw(peak=peak, warmup=1, steps=10, clip=peak * 100) for peak in rates)
    step = jax.jit(chex.assert_max_traces(make_step(objective, first), n=1))
    for peak, optimizer in zip(rates, (first, second), strict=True):
        state, _ = step(new_state(params, optimizer), batch_at(0), ROOT)
        moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), state.params, params)
        assert max(map(float, jax.tree.leaves(moved))) == pytest.approx(peak, rel=1e-2)
        average = jax.tree.map(lambda new, old: 0.1 * old + 0.9 * new, state.params, params)
        chex.assert_trees_all_close(state.ema, average, atol=1e-6)


@pytest.mark.parametrize(
    ("decay", "steps", "expected"),
    [
        ("constant", [0, 1, 2, 3, 4], [0.5, 1.0, 1.5, 2.0, 2.0]),
        ("cosine", [4, 8, 12, 13], [2.0, 1.1, 0.2, 0.2]),
        ("inverse_sqrt", [3, 7], [2.0, 2.0 * (4 / 8) ** 0.5]),
    ],
)
def test_learning_rates(decay, steps, expected):
    rate = functools.partial(learning_rate, peak=2.0, warmup=4.0, steps=12.0, floor=0.1, decay=decay)
    np.testing.assert_allclose(jax.jit(jax.vmap(rate))(jnp.array(steps)), expected, rtol=1e-6)


def test_a_warm_up_may_begin_at_zero_and_may_be_absent():
    rate = functools.partial(learning_rate, peak=2.0, steps=12.0, floor=0.1, decay="constant", warmup_first=0.0)
    np.testing.assert_allclose([rate(jnp.int32(step), warmup=4.0) for step in (0, 1, 4)], [0.0, 0.5, 2.0])
    assert rate(jnp.int32(0), warmup=0.0) == 2.0


def test_decay_of_the_moving_average():
    np.testing.assert_allclose(ema_decay(0.9999, jnp.array([0, 90, 10**6])), [0.1, 0.91, 0.9999], rtol=1e-6)


def test_weight_decay_touches_kernels_and_tables_only(params):
    optimizer = adamw(peak=1.0, warmup=1, steps=10, weight_decay=0.5)
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    leaves = zip(jax.tree_util.tree_leaves_with_path(updates), jax.tree.leaves(params), strict=True)
    for (path, update), leaf in leaves:
        name = jax.tree_util.keystr(path)
        decay = 0.5 if "kernel" in name or "embedding" in name else 0.0
        np.testing.assert_allclose(update, -decay * leaf, atol=1e-6)


def test_weight_decay_of_all_touches_biases_and_scales_too(params):
    optimizer = adamw(peak=1.0, warmup=1, steps=10, weight_decay=0.5, decayed="all")
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    chex.assert_trees_all_close(updates, jax.tree.map(lambda leaf: -0.5 * leaf, params), atol=1e-6)


@pytest.mark.parametrize("axes", [(3, 1, 1), (0, 1, 1), (-1, -1, 1), (5, -1, 1)])
def test_invalid_meshes_raise(axes):
    with refused("mesh"):
        make_mesh(*axes)


def test_a_batch_that_does_not_divide_names_the_next_that_does():
    with refused(r"train\.batch: 12 .* 16$"):
        check_batch(12, make_mesh(8, 1, 1))


def test_muon_moves_kernels_of_blocks_by_orthogonal_matrices_of_adams_size():
    """Every singular value of an update is about 0.2 sqrt(128) times the rate; all other leaves move as with AdamW."""
    shapes = {"blocks": {"qkv": {"kernel": (3, 128, 64), "bias": (3, 64)}}, "head": {"kernel": (64, 9)}}
    draw = np.random.default_rng(0).normal
    params, grads = (
        jax.tree.map(
            lambda shape: jnp.asarray(draw(size=shape), jnp.float32), shapes, is_leaf=lambda x: type(x) is tuple
        )
        for _ in range(2)
    )
    updates = {}
    for blocks in ("adam", "muon"):
        optimizer = adamw(peak=0.1, warmup=0, steps=10, clip=1e9, blocks=blocks)
        updates[blocks] = optimizer.update(grads, optimizer.init(params), params)[0]
    kernels = {name: np.asarray(each["blocks"]["qkv"].pop("kernel")) for name, each in updates.items()}
    chex.assert_trees_all_equal(updates["adam"], updates["muon"])
    sizes = np.linalg.svd(kernels["muon"], compute_uv=False) / (0.1 * 0.2 * 128**0.5)
    assert sizes.min() > 0.6 and sizes.max() < 1.25
    # It goes down the gradient, and each matrix of the stack is its own.
    assert (np.sum(kernels["muon"] * grads["blocks"]["qkv"]["kernel"], axis=(1, 2)) < 0).all()
    alone = {"blocks": {"qkv": {"kernel": grads["blocks"]["qkv"]["kernel"][:1]}}}
    optimizer = adamw(peak=0.1, warmup=0, steps=10, clip=1e9, blocks="muon")
    first = optimizer.update(alone, optimizer.init(alone), alone)[0]["blocks"]["qkv"]["kernel"]
    np.testing.assert_allclose(first[0], kernels["muon"][0], rtol=1e-4, atol=1e-5)
