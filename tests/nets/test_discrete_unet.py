"""The discrete U-Net: layout of sub-tokens, locality, counts, dropout, and invalid sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import discrete_unet
from diffusion.nets.discrete_unet import UNet
from tests.nets.small_discrete_unets import BASE, BATCH, CLASSES, COLORS, DIGITS, HEIGHT, NET, WIDTH, random_params

LENGTH = COLORS * HEIGHT * WIDTH


@pytest.fixture(scope="module")
def state():
    return jax.random.randint(jax.random.key(1), (BATCH, LENGTH * DIGITS), 0, BASE + 1)


@pytest.fixture(scope="module")
def params(state):
    return random_params(NET, state)


logits = jax.jit(NET.apply)


@jax.jit
def with_dropout(params, state, keys):
    return NET.apply(params, state, keys=keys)


def test_subtoken_j_of_color_c_fills_plane_c_l_plus_j(params, state):
    """The input of the first normalization has every sub-token in its planes."""
    subtokens = np.asarray(state).reshape(BATCH, COLORS, HEIGHT, WIDTH, DIGITS)
    table = np.asarray(params["params"]["embedding"]["table"])
    _, seen = NET.apply(params, state, capture_intermediates=lambda module, _: module.name == "embedding")
    assert seen["intermediates"]["embedding"]["__call__"][0].shape == (BATCH, LENGTH, 4)
    planes = np.zeros((BATCH, HEIGHT, WIDTH, COLORS * 4), np.float32)
    for color in range(COLORS):
        for place in range(DIGITS):
            first = (color * DIGITS + place) * 2
            planes[..., first : first + 2] = table[subtokens[:, color, :, :, place]]
    groups = planes.reshape(BATCH, HEIGHT * WIDTH, 2, COLORS * 2)
    mean, deviation = groups.mean((1, 3), keepdims=True), groups.std((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(deviation**2 + 1e-6)).reshape(planes.shape)
    norm = params["params"]["block0"]["norm1"]
    _, seen = NET.apply(params, state, capture_intermediates=lambda module, _: module.name == "norm1")
    normalized = seen["intermediates"]["block0"]["norm1"]["__call__"][0]
    np.testing.assert_allclose(normalized, expected * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), atol=1e-4)


def test_logits_are_equivariant_to_shifts_by_the_coarsest_pixel():
    """This holds away from the borders, and the logits are those of their pixel."""
    height, width = 4, 64
    net = UNet((height, width, 1), 5, 3, 1, channels=4, multipliers=(1, 1), res_blocks=0, groups=1, head_channels=4)
    blank = jnp.zeros((1, height, width), jnp.int32)
    params = random_params(net, blank.reshape(1, -1), without=("attention",))
    apply = jax.jit(net.apply)
    spot = jnp.array([[1, 2], [3, 1]])
    none, here, there = (
        np.asarray(apply(params, image.reshape(1, -1))).reshape(height, width, 5)
        for image in (blank, *(blank.at[0, 1:3, column : column + 2].set(spot) for column in (30, 32)))
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
    """A bias of the last convolution for color c and class k changes only class k of the tokens of c."""
    params = random_params(NET, state, without=("head",))
    params["params"]["head"]["conv"]["bias"] = jnp.zeros(COLORS * CLASSES).at[1 * CLASSES + 7].set(1.0)
    shown = np.asarray(logits(params, state)).reshape(BATCH, COLORS, HEIGHT * WIDTH, CLASSES)
    assert (shown[:, 1, :, 7] == 1).all() and shown.sum() == BATCH * HEIGHT * WIDTH


def test_one_subtoken_is_a_token_embedding():
    net = UNet((2, 2, 1), 5, 5, 1, channels=2, multipliers=(1,), res_blocks=0, groups=1, head_channels=2)
    state = jnp.array([[0, 5, 2, 2]])
    params = random_params(net, state)
    _, seen = net.apply(params, state, capture_intermediates=lambda module, _: module.name == "embedding")
    table = params["params"]["embedding"]["table"]
    np.testing.assert_array_equal(seen["intermediates"]["embedding"]["__call__"][0], table[state])
    # The logits are equal for a permuted table and permuted tokens.
    order = jnp.array([3, 0, 4, 1, 2, 5])
    params["params"]["embedding"]["table"] = table[jnp.argsort(order)]
    moved = net.apply(params, order[state])
    params["params"]["embedding"]["table"] = table
    np.testing.assert_allclose(moved, net.apply(params, state), atol=1e-6)


def test_noise_level_is_not_read(params, state):
    np.testing.assert_array_equal(NET.apply(params, state, jnp.ones(BATCH)), NET.apply(params, state))


def test_dropout_of_an_example_depends_on_its_key_only(params, state):
    keys = jax.random.split(jax.random.key(3), BATCH)
    together = with_dropout(params, state, keys)
    for index in range(BATCH):
        one = slice(index, index + 1)
        np.testing.assert_allclose(with_dropout(params, state[one], keys[one]), together[one], atol=2e-4)
    assert np.abs(together - logits(params, state)).max() > 1e-1
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    assert np.abs(together - with_dropout(params, state, others)).max() > 1e-1


def test_parameter_count_of_the_published_network():
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
    # 36 blocks are compiled as 11, five single blocks and six runs.
    blocks = [len(run) for run in discrete_unet.runs(net.parts()) if run[0].kind == "block"]
    assert blocks == [5, 1, 4, 5, 1, 1, 6, 5, 1, 1, 5]


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
