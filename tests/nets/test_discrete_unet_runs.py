"""Runs of equal blocks in the discrete U-Net: order, initialization, gradients, precision, and sharding."""

import itertools
import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import discrete_unet
from diffusion.nets.layers import dropout_seeds
from tests.nets.small_discrete_unets import BASE, BATCH, CLASSES, DIGITS, RUNS, random_params


@pytest.fixture(scope="module")
def small():
    return jax.random.randint(jax.random.key(1), (BATCH, 16 * DIGITS), 0, BASE + 1)


def test_logits_start_uniform(small):
    initial = jax.jit(RUNS.init)(jax.random.key(0), small)
    first = jax.jit(RUNS.apply)(initial, small)
    assert first.shape == (BATCH, 16, CLASSES) and (first == 0).all()
    # Every block of a run has a separate initialization, with the fan of one block, and is the identity.
    run = initial["params"]["blocks5"]
    kernels = np.asarray(run["block"]["conv1"]["conv"]["kernel"])
    assert kernels.shape == (4, 3, 3, 8, 4)
    for one, other in itertools.combinations(kernels, 2):
        assert 0.9 / np.sqrt(72) < np.abs(one).max() <= 1 / np.sqrt(72) and np.abs(one - other).max() > 0.05
    for last in (run["block"]["conv2"], run["attention"]["out"]):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(last))
    # Blocks start with plain normalization, unless the published initialization is requested.
    assert (initial["params"]["block3"]["constant"] == 0).all() and (run["block"]["constant"] == 0).all()
    block, image = discrete_unet.ResBlock(16, 0.0, 2, 19.6, "float32"), jnp.ones((1, 2, 2, 4))
    wide = jax.jit(block.init)(jax.random.key(0), image, None)["params"]["constant"]
    assert 10 < np.abs(wide).max() <= 19.6 and wide.min() < 0 < wide.max()


def one_by_one(net, params, state, seeds):
    """Return the logits of a network whose blocks are applied one by one, in the order of ADM."""
    height, width, colors = net.shape
    params, blocks = params["params"], {}
    for name, leaves in params.items():
        if match := re.fullmatch(r"blocks(\d+)", name):
            for turn in range(len(leaves["block"]["constant"])):
                blocks[int(match[1]) + turn] = jax.tree.map(lambda leaf, turn=turn: leaf[turn], leaves)
        elif match := re.fullmatch(r"(block|attention)(\d+)", name):
            blocks.setdefault(int(match[2]), {})[match[1]] = leaves
    numbers = iter(range(len(seeds)))
    assert sorted(blocks) == list(range(len(seeds)))

    def block(x, multiplier):
        number = next(numbers)
        parts = blocks[number]
        residual = discrete_unet.ResBlock(net.channels * multiplier, net.dropout, net.groups, 0.0, "float32")
        x = residual.apply({"params": parts["block"]}, x, seeds[number, :, 0])
        spatial = discrete_unet.SpatialAttention(net.head_channels, net.groups, "float32", "auto")
        return spatial.apply({"params": parts["attention"]}, x) if "attention" in parts else x

    x = net.bind({"params": params}).embedding(state).reshape(-1, colors, height, width, net.channels)
    x = jnp.moveaxis(x, 1, 3).reshape(-1, height, width, colors * net.channels)
    stored, last = [x], len(net.multipliers) - 1
    for level, multiplier in enumerate(net.multipliers):
        for _ in range(net.res_blocks):
            x = block(x, multiplier)
            stored.append(x)
        if level < last:
            x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
            stored.append(x)
    x = block(block(x, net.multipliers[-1]), net.multipliers[-1])
    for level in range(last, -1, -1):
        for _ in range(net.res_blocks + 1):
            x = block(jnp.concatenate([x, stored.pop()], axis=-1), net.multipliers[level])
        x = x.repeat(2, axis=1).repeat(2, axis=2) if level else x
    assert not stored
    x = jax.nn.silu(nn.GroupNorm(net.groups).apply({"params": params["norm"]}, x))
    x = discrete_unet.Conv(colors * net.classes, net.head_size).apply({"params": params["head"]}, x)
    return jnp.moveaxis(x.reshape(-1, height, width, colors, net.classes), 3, 1).reshape(len(state), -1, net.classes)


DEEP = RUNS.clone(multipliers=(1, 2), attention_factors=(2,))


@jax.jit
def deep(params, state, keys):
    return DEEP.apply(params, state, keys=keys)


def test_run_equals_its_blocks_one_by_one(small):
    """Stacked parameters, stored maps and dropout seeds have the order of the blocks, over two levels."""
    params = random_params(DEEP, small)
    assert {"blocks0", "blocks4", "blocks8", "blocks13"} < params["params"].keys()
    keys = jax.random.split(jax.random.key(3), BATCH)
    seeds = dropout_seeds(keys, 16, 1)
    alone = jax.jit(partial(one_by_one, DEEP))
    looped = deep(params, small, keys)
    np.testing.assert_allclose(looped, alone(params, small, seeds), atol=1e-3, rtol=1e-4)
    # Blocks have different dropout: with the seeds of the first block in the whole run the logits differ.
    for first, turns in ((0, 3), (8, 3), (13, 3)):
        same = seeds.at[first : first + turns].set(seeds[first][None])
        assert np.abs(looped - alone(params, small, same)).max() > 1e-1


def test_blocks_of_a_run_have_maps_of_equal_widths():
    """With 3 + 1 and 1 + 3 channels the last two blocks have equal inputs, but maps of different widths."""
    parts = discrete_unet.layout(12, 4, (1, 3), 1, ())
    assert (parts[-2].inputs, parts[-1].inputs) == (16, 16)
    assert [len(run) for run in discrete_unet.runs(parts)] == [1] * 10
    parts = discrete_unet.layout(4, 4, (1, 1), 2, ())
    assert [len(run) for run in discrete_unet.runs(parts)] == [2, 1, 2, 1, 1, 3, 1, 3]
    assert [part for run in discrete_unet.runs(parts) for part in run] == parts


@pytest.fixture(scope="module")
def gradient(small):
    """Return the gradient of a network with runs and single blocks, as a function of changed fields."""
    params = random_params(RUNS, small)
    keys = jax.random.split(jax.random.key(3), BATCH)

    @cache
    def under(**change):
        net = RUNS.clone(**change)

        def loss(params):
            out = net.apply(params, small, keys=keys)
            assert out.dtype == change.get("dtype", "float32")
            return jnp.mean(jnp.square(out.astype(jnp.float32)))

        return jax.jit(jax.grad(loss))(params)["params"]

    return under


def test_every_block_of_a_run_has_a_gradient(gradient):
    for name in ("blocks0", "blocks5"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient()[name]):
            size = np.abs(np.asarray(leaf)).reshape(len(leaf), -1).max(1)
            assert (size > 1e-5).all(), (name, jax.tree_util.keystr(path), size)


@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "full", "unroll": 4}, {"dtype": "bfloat16"}])
def test_rematerialization_and_low_precision_preserve_gradients(change, gradient):
    exact, again = gradient(), gradient(**change)
    tolerance = 1e-4 if "remat" in change else 0.1
    for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(again), strict=True):
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(one) + 1e-3


def test_activations_are_split_over_the_batch_axes_of_a_mesh(small):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    axes = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.make_mesh((2, 1, 1), ("data", "fsdp", "model"), axis_types=axes, devices=jax.devices()[:2])
    params, keys = random_params(DEEP, small), jax.random.split(jax.random.key(3), BATCH)
    with jax.set_mesh(mesh):
        split = deep(params, small[:2], keys[:2])
    np.testing.assert_allclose(split, deep(params, small, keys)[:2], atol=1e-3, rtol=1e-4)
