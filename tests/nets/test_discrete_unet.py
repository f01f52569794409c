"""The discrete U-Net and the small perceptron: layout of digits, locality, counts, dropout, and bad sizes."""

import itertools
import re
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import discrete_unet, mlp
from diffusion.nets.discrete_unet import UNet
from diffusion.nets.layers import dropout_seeds
from diffusion.nets.mlp import Mlp

BATCH, HEIGHT, WIDTH, COLORS, DIGITS, BASE, CLASSES = 3, 4, 8, 3, 2, 4, 15
LENGTH = COLORS * HEIGHT * WIDTH
SIZES = dict(multipliers=(1, 2), res_blocks=1, attention_factors=(), head_channels=4, groups=2, dropout=0.5)
NET = UNet((HEIGHT, WIDTH, COLORS), CLASSES, BASE, DIGITS, channels=4, **SIZES)
# Runs of equal blocks: blocks 0 to 2 store maps, 5 to 8 join them, and the middle's two are alone.
RUNS = UNet((4, 4, 1), CLASSES, BASE, DIGITS, channels=4, **SIZES | dict(multipliers=(1,), attention_factors=(1,)))
RUNS = RUNS.clone(res_blocks=3)


def random_params(net, state, without=()):
    """Parameters away from their start, made without compiling it; those named in `without` are zero."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), state)
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = rng.normal(0, 0.3, leaf.shape) + ("scale" in name)
        return jnp.asarray(0 * values if any(word in name for word in without) else values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="module")
def state():
    return jax.random.randint(jax.random.key(1), (BATCH, LENGTH * DIGITS), 0, BASE + 1)


@pytest.fixture(scope="module")
def params(state):
    return random_params(NET, state)


@pytest.fixture(scope="module")
def small():
    return jax.random.randint(jax.random.key(1), (BATCH, 16 * DIGITS), 0, BASE + 1)


logits = jax.jit(NET.apply)


@jax.jit
def with_dropout(params, state, keys):
    return NET.apply(params, state, keys=keys)


def test_logits_start_uniform(small):
    initial = jax.jit(RUNS.init)(jax.random.key(0), small)
    first = jax.jit(RUNS.apply)(initial, small)
    assert first.shape == (BATCH, 16, CLASSES) and (first == 0).all()
    # Every block of a run has its own start, with the fan of one block, and adds nothing.
    run = initial["params"]["blocks5"]
    kernels = np.asarray(run["block"]["conv1"]["conv"]["kernel"])
    assert kernels.shape == (4, 3, 3, 8, 4)
    for one, other in itertools.combinations(kernels, 2):
        assert 0.9 / np.sqrt(72) < np.abs(one).max() <= 1 / np.sqrt(72) and np.abs(one - other).max() > 0.05
    for last in (run["block"]["conv2"], run["attention"]["out"]):
        assert all((leaf == 0).all() for leaf in jax.tree.leaves(last))
    # Blocks begin as plain normalization; the published start may be asked for.
    assert (initial["params"]["block3"]["constant"] == 0).all() and (run["block"]["constant"] == 0).all()
    block, picture = discrete_unet.ResBlock(16, 0.0, 2, 19.6, "float32"), jnp.ones((1, 2, 2, 4))
    wide = jax.jit(block.init)(jax.random.key(0), picture, None)["params"]["constant"]
    assert 10 < np.abs(wide).max() <= 19.6 and wide.min() < 0 < wide.max()


def test_digit_j_of_color_c_fills_plane_c_l_plus_j(params, state):
    """The first normalization sees every digit where the layout says."""
    digits = np.asarray(state).reshape(BATCH, COLORS, HEIGHT, WIDTH, DIGITS)
    table = np.asarray(params["params"]["embedding"]["table"])
    _, seen = NET.apply(params, state, capture_intermediates=lambda module, _: module.name == "embedding")
    assert seen["intermediates"]["embedding"]["__call__"][0].shape == (BATCH, LENGTH, 4)
    planes = np.zeros((BATCH, HEIGHT, WIDTH, COLORS * 4), np.float32)
    for color in range(COLORS):
        for digit in range(DIGITS):
            first = (color * DIGITS + digit) * 2
            planes[..., first : first + 2] = table[digits[:, color, :, :, digit]]
    groups = planes.reshape(BATCH, HEIGHT * WIDTH, 2, COLORS * 2)
    mean, deviation = groups.mean((1, 3), keepdims=True), groups.std((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(deviation**2 + 1e-6)).reshape(planes.shape)
    norm = params["params"]["block0"]["norm1"]
    _, seen = NET.apply(params, state, capture_intermediates=lambda module, _: module.name == "norm1")
    found = seen["intermediates"]["block0"]["norm1"]["__call__"][0]
    np.testing.assert_allclose(found, expected * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), atol=1e-4)


def test_a_shift_by_the_coarsest_pixel_shifts_the_logits():
    """Away from the borders the network treats all places alike, and logits belong to the pixel at their place."""
    height, width = 4, 64
    net = UNet((height, width, 1), 5, 3, 1, channels=4, multipliers=(1, 1), res_blocks=0, groups=1, head_channels=4)
    blank = jnp.zeros((1, height, width), jnp.int32)
    params = random_params(net, blank.reshape(1, -1), without=("attention",))
    apply = jax.jit(net.apply)
    spot = jnp.array([[1, 2], [3, 1]])
    none, here, there = (
        np.asarray(apply(params, picture.reshape(1, -1))).reshape(height, width, 5)
        for picture in (blank, *(blank.at[0, 1:3, column : column + 2].set(spot) for column in (30, 32)))
    )
    np.testing.assert_allclose(there[:, 22:44], here[:, 20:42], atol=1e-4)
    response = np.abs(here - none).max((0, 2))
    assert response[28:34].max() > 5 * response[:16].max() and response[28:34].max() > 0.1


def test_every_pixel_reads_its_neighbors_of_all_colors(params, state):
    index = (2 * HEIGHT * WIDTH + 2 * WIDTH + 5) * DIGITS
    changed = logits(params, state.at[:, index].set((state[:, index] + 1) % BASE))
    moved = np.abs(np.asarray(changed - logits(params, state))).max((0, 2)).reshape(COLORS, HEIGHT, WIDTH)
    assert (moved[:, 2, 5] > 1e-3).all() and (moved[:, 1, 4] > 1e-3).all()


def test_colors_and_positions_of_logits_are_in_the_order_of_tokens(state):
    """A bias of the last convolution for color c and class k shows at c's tokens, class k, alone."""
    params = random_params(NET, state, without=("head",))
    params["params"]["head"]["conv"]["bias"] = jnp.zeros(COLORS * CLASSES).at[1 * CLASSES + 7].set(1.0)
    shown = np.asarray(logits(params, state)).reshape(BATCH, COLORS, HEIGHT * WIDTH, CLASSES)
    assert (shown[:, 1, :, 7] == 1).all() and shown.sum() == BATCH * HEIGHT * WIDTH


def test_one_digit_is_a_token_embedding():
    net = UNet((2, 2, 1), 5, 5, 1, channels=2, multipliers=(1,), res_blocks=0, groups=1, head_channels=2)
    state = jnp.array([[0, 5, 2, 2]])
    params = random_params(net, state)
    _, seen = net.apply(params, state, capture_intermediates=lambda module, _: module.name == "embedding")
    table = params["params"]["embedding"]["table"]
    np.testing.assert_array_equal(seen["intermediates"]["embedding"]["__call__"][0], table[state])
    # The same picture behind a permuted table is the same to the network.
    order = jnp.array([3, 0, 4, 1, 2, 5])
    params["params"]["embedding"]["table"] = table[jnp.argsort(order)]
    moved = net.apply(params, order[state])
    params["params"]["embedding"]["table"] = table
    np.testing.assert_allclose(moved, net.apply(params, state), atol=1e-6)


def test_noise_level_is_not_read(params, state):
    np.testing.assert_array_equal(NET.apply(params, state, jnp.ones(BATCH)), NET.apply(params, state))


def test_dropout_of_an_example_depends_on_its_key_alone(params, state):
    keys = jax.random.split(jax.random.key(3), BATCH)
    together = with_dropout(params, state, keys)
    for index in range(BATCH):
        one = slice(index, index + 1)
        np.testing.assert_allclose(with_dropout(params, state[one], keys[one]), together[one], atol=2e-4)
    assert np.abs(together - logits(params, state)).max() > 1e-1
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    assert np.abs(together - with_dropout(params, state, others)).max() > 1e-1


def test_the_published_network_has_as_many_parameters_as_counted_by_hand():
    net = UNet((32, 32, 3), 256, 16, 2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 6144), jnp.int32))
    counted = sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def block(inputs, outputs):
        skip = inputs * outputs + outputs if inputs != outputs else 0
        return 2 * inputs + 9 * inputs * outputs + outputs + 4 * outputs + 9 * outputs**2 + outputs + skip

    attention = 2 * 384 + 4 * 384**2 + 4 * 384
    down = 5 * block(288, 288) + block(288, 384) + 4 * block(384, 384) + 5 * attention + 5 * block(384, 384)
    middle = 2 * block(384, 384) + attention
    up = 6 * block(768, 384) + 5 * block(768, 384) + block(672, 384) + 6 * attention
    up += block(672, 288) + 5 * block(576, 288)
    head = 2 * 288 + 9 * 288 * 768 + 768
    assert counted == 17 * 48 + down + middle + up + head == 113_965_680
    # 36 blocks are compiled as 11: five alone, the others in six runs.
    blocks = [len(run) for run in discrete_unet.runs(net.parts()) if run[0].kind == "block"]
    assert blocks == [5, 1, 4, 5, 1, 1, 6, 5, 1, 1, 5]


def test_operations_agree_with_the_compilers_count():
    """XLA counts what it runs; norms, activations and pooling are what the formula leaves out."""
    net = UNet((32, 32, 1), 16, 4, 2, channels=32, multipliers=(1, 2), res_blocks=1, head_channels=32, groups=8)
    state = jnp.zeros((1, 2048), jnp.int32)
    params = jax.eval_shape(net.init, jax.random.key(0), state)
    counted = jax.jit(net.apply).lower(params, state).cost_analysis()["flops"]
    assert 0.8 < discrete_unet.flops_per_example(net) / counted < 1.1


def one_by_one(net, params, state, seeds):
    """The logits of a network whose every block is applied by itself, in the order of ADM's layout."""
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


def test_a_run_of_blocks_is_the_blocks_one_after_the_other(small):
    """Stacked parameters, stored maps and dropout belong to the blocks in their order, over two levels."""
    params = random_params(DEEP, small)
    assert {"blocks0", "blocks4", "blocks8", "blocks13"} < params["params"].keys()
    keys = jax.random.split(jax.random.key(3), BATCH)
    seeds = dropout_seeds(keys, 16, 1)
    alone = jax.jit(partial(one_by_one, DEEP))
    found = deep(params, small, keys)
    np.testing.assert_allclose(found, alone(params, small, seeds), atol=1e-3, rtol=1e-4)
    # Each block drops other numbers: with the seeds of a run's first block in all of it the logits are others.
    for first, turns in ((0, 3), (8, 3), (13, 3)):
        same = seeds.at[first : first + turns].set(seeds[first][None])
        assert np.abs(found - alone(params, small, same)).max() > 1e-1


def test_only_blocks_that_read_maps_of_equal_widths_are_a_run():
    """With 3 + 1 and 1 + 3 channels to read, the last two blocks have equal inputs, but not equal maps."""
    parts = discrete_unet.layout(12, 4, (1, 3), 1, ())
    assert (parts[-2].inputs, parts[-1].inputs) == (16, 16)
    assert [len(run) for run in discrete_unet.runs(parts)] == [1] * 10
    parts = discrete_unet.layout(4, 4, (1, 1), 2, ())
    assert [len(run) for run in discrete_unet.runs(parts)] == [2, 1, 2, 1, 1, 3, 1, 3]
    assert [part for run in discrete_unet.runs(parts) for part in run] == parts


def test_a_network_without_runs_has_one_block_a_name(params):
    """So that weights of networks with one block a level keep their places."""
    names = {"embedding", "norm", "head", "attention2", *(f"block{number}" for number in range(8))}
    assert params["params"].keys() == names
    parts = {"norm1", "conv1", "constant", "norm2", "conv2"}
    assert params["params"]["block2"].keys() == parts and params["params"]["block0"].keys() == parts | {"skip"}
    assert params["params"]["block0"]["conv1"]["conv"]["kernel"].shape == (3, 3, 12, 4)
    assert params["params"]["attention2"].keys() == {"norm", "qkv", "out"}


@pytest.fixture(scope="module")
def gradient(small):
    """The gradient of a network with runs and single blocks, under changes of its fields."""
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


def test_every_block_of_a_run_learns(gradient):
    for name in ("blocks0", "blocks5"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient()[name]):
            size = np.abs(np.asarray(leaf)).reshape(len(leaf), -1).max(1)
            assert (size > 1e-5).all(), (name, jax.tree_util.keystr(path), size)


@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "full", "unroll": 4}, {"dtype": "bfloat16"}])
def test_rematerialization_changes_nothing_and_low_precision_little(change, gradient):
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 6, 3), "multipliers": (1, 1, 1)}, r"unet\.multipliers: 3 levels halve 4 x 6"),
        ({"digits": 3}, r"codec\.digits: 3 digits do not divide"),
        ({"groups": 5}, r"unet\.groups: 5 do not divide"),
        ({"head_channels": 3}, r"unet\.head_channels: 3 do not divide"),
        ({"remat": "dots"}, r"model\.remat: unknown 'dots'"),
    ],
)
def test_bad_sizes_name_the_field(change, message, params, state):
    with pytest.raises(ValueError, match=message):
        NET.clone(**change).apply(params, state)


TOY = Mlp(positions=2, classes=9, base=3, digits=2, hidden=16, layers=2, time=True)


def test_perceptron_reads_every_digit_and_the_time():
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
