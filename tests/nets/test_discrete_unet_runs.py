"""Runs of equal blocks in the discrete U-Net: order, initialization, gradients, and precision."""

import itertools
import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets import discrete_unet
from diffusion.nets.layers import dropout_seeds
from tests.nets.small_discrete_unets import KEYS, RUNS, random_params, random_state

STATE = random_state(RUNS)
DEEP = RUNS.clone(multipliers=(1, 2), attention_factors=(2,))


def test_initialization_of_runs():
    """Every block of a run has a separate initialization, with the fan of one block, and is the identity."""
    net = RUNS.clone(constant_init=19.6)
    initial = jax.jit(net.init)(jax.random.key(0), STATE)["params"]
    run = initial["blocks5"]
    kernels = np.asarray(run["block"]["conv1"]["conv"]["kernel"])
    assert kernels.shape == (4, 3, 3, 8, 4)
    for one, other in itertools.combinations(kernels, 2):
        assert 0.9 / np.sqrt(72) < np.abs(one).max() <= 1 / np.sqrt(72) and np.abs(one - other).max() > 0.05
    for last in (run["block"]["conv2"], run["attention"]["out"], initial["head"]):
        assert not any(leaf.any() for leaf in jax.tree.leaves(last))
    # The published initialization of scale and shift.
    wide = run["block"]["constant"]
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
        residual = discrete_unet.ResBlock(
            net.channels * multiplier, net.dropout, net.groups, 0.0, "float32", net.norm_epsilon
        )
        x = residual.apply({"params": parts["block"]}, x, seeds[number, :, 0])
        spatial = discrete_unet.SpatialAttention(net.head_channels, net.groups, "float32", "auto", net.norm_epsilon)
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


def test_run_equals_its_blocks_one_by_one():
    """Stacked parameters, stored maps and dropout seeds have the order of the blocks, over two levels."""
    params = random_params(DEEP)
    assert {"blocks0", "blocks4", "blocks8", "blocks13"} < params["params"].keys()
    seeds = dropout_seeds(KEYS, 16, 1)
    alone = jax.jit(partial(one_by_one, DEEP))
    looped = jax.jit(DEEP.apply)(params, STATE, keys=KEYS)
    np.testing.assert_allclose(looped, alone(params, STATE, seeds), atol=1e-3, rtol=1e-4)
    # Blocks have different dropout: with the seeds of the first block in the whole run the logits differ.
    for first, turns in ((0, 3), (8, 3), (13, 3)):
        same = seeds.at[first : first + turns].set(seeds[first][None])
        assert np.abs(looped - alone(params, STATE, same)).max() > 1e-1


def test_blocks_of_a_run_have_maps_of_equal_widths():
    """With 3 + 1 and 1 + 3 channels the last two blocks have equal inputs, but maps of different widths."""
    parts = discrete_unet.layout(12, 4, (1, 3), 1, ())
    assert (parts[-2].inputs, parts[-1].inputs) == (16, 16)
    assert [len(run) for run in discrete_unet.runs(parts)] == [1] * 10
    parts = discrete_unet.layout(4, 4, (1, 1), 2, ())
    assert [len(run) for run in discrete_unet.runs(parts)] == [2, 1, 2, 1, 1, 3, 1, 3]
    assert [part for run in discrete_unet.runs(parts) for part in run] == parts


def test_every_block_has_a_gradient_that_rematerialization_and_low_precision_preserve():
    params = random_params(RUNS)

    def gradient(**change):
        net = RUNS.clone(**change)

        def loss(params):
            out = net.apply(params, STATE, keys=KEYS)
            assert out.dtype == change.get("dtype", "float32")
            return jnp.mean(jnp.square(out.astype(jnp.float32)))

        return jax.jit(jax.grad(loss))(params)["params"]

    exact = gradient()
    for name in ("blocks0", "blocks5"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(exact[name]):
            size = np.abs(np.asarray(leaf)).reshape(len(leaf), -1).max(1)
            assert (size > 1e-5).all(), (name, jax.tree_util.keystr(path), size)
    for change, tolerance in ((dict(remat="full", unroll=2), 1e-4), (dict(dtype="bfloat16"), 0.1)):
        for one, other in zip(jax.tree.leaves(exact), jax.tree.leaves(gradient(**change)), strict=True):
            assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(one) + 1e-3
