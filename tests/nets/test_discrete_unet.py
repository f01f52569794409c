"""The discrete U-Net: layout of sub-tokens, locality, counts, dropout, and invalid sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets import discrete_unet
from diffusion.nets.discrete_unet import UNet
from tests.checks import refused
from tests.nets.small_discrete_unets import BATCH, KEYS, NET, random_params, random_state

(HEIGHT, WIDTH, COLORS), CLASSES, BASE, DIGITS = NET.shape, NET.classes, NET.base, NET.digits
STATE, PARAMS = random_state(NET), random_params(NET)


@jax.jit
def run(params, state, keys=None):
    """Return the logits, the embeddings, and the output of the first normalization."""
    out, seen = NET.apply(
        params, state, keys=keys, capture_intermediates=lambda module, _: module.name in ("embedding", "norm1")
    )
    seen = seen["intermediates"]
    return out, seen["embedding"]["__call__"][0], seen["block0"]["norm1"]["__call__"][0]


def test_subtoken_j_of_color_c_fills_plane_c_l_plus_j():
    """The input of the first normalization has every sub-token in its planes."""
    subtokens = np.asarray(STATE).reshape(BATCH, COLORS, HEIGHT, WIDTH, DIGITS)
    table = np.asarray(PARAMS["params"]["embedding"]["table"])
    _, embedded, normalized = run(PARAMS, STATE)
    assert embedded.shape == (BATCH, COLORS * HEIGHT * WIDTH, 4)
    planes = np.concatenate([table[subtokens[:, c, :, :, j]] for c in range(COLORS) for j in range(DIGITS)], axis=-1)
    groups = planes.reshape(BATCH, HEIGHT * WIDTH, 2, COLORS * 2)
    mean, deviation = groups.mean((1, 3), keepdims=True), groups.std((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(deviation**2 + 1e-6)).reshape(planes.shape)
    norm = jax.tree.map(np.asarray, PARAMS["params"]["block0"]["norm1"])
    np.testing.assert_allclose(normalized, expected * norm["scale"] + norm["bias"], atol=1e-4)


def test_every_pixel_reads_its_neighbors_of_all_colors():
    index = (2 * HEIGHT * WIDTH + 2 * WIDTH + 5) * DIGITS
    changed = run(PARAMS, STATE.at[:, index].set((STATE[:, index] + 1) % BASE))[0]
    moved = np.abs(changed - run(PARAMS, STATE)[0]).max((0, 2)).reshape(COLORS, HEIGHT, WIDTH)
    assert (moved[:, 2, 5] > 1e-3).all() and (moved[:, 1, 4] > 1e-3).all()


def test_colors_and_positions_of_logits_are_in_the_order_of_tokens():
    """A bias of the last convolution for color c and class k changes only class k of the tokens of c."""
    head = jax.tree.map(jnp.zeros_like, PARAMS["params"]["head"])
    head["conv"]["bias"] = head["conv"]["bias"].at[1 * CLASSES + 7].set(1.0)
    shown = np.asarray(run({"params": PARAMS["params"] | {"head": head}}, STATE)[0])
    shown = shown.reshape(BATCH, COLORS, HEIGHT * WIDTH, CLASSES)
    assert (shown[:, 1, :, 7] == 1).all() and shown.sum() == BATCH * HEIGHT * WIDTH


def test_dropout_of_an_example_depends_on_its_key_only():
    together, order = run(PARAMS, STATE, KEYS)[0], jnp.array([2, 0, 1])
    np.testing.assert_allclose(run(PARAMS, STATE[order], KEYS[order])[0], together[order], atol=2e-4)
    assert np.abs(together - run(PARAMS, STATE)[0]).max() > 1e-1
    moved = np.abs(together - run(PARAMS, STATE, KEYS.at[0].set(jax.random.key(4)))[0]).max((1, 2))
    assert moved[0] > 1e-1 and (moved[1:] < 2e-4).all()


def test_parameter_count_of_the_published_network():
    net = UNet((32, 32, 3), 256, 16, 2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 6144), jnp.int32))
    # The embedding, 36 blocks, their attentions, and the head.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 113_965_680
    # 36 blocks are compiled as 11, five single blocks and six runs.
    blocks = [len(run) for run in discrete_unet.runs(net.parts()) if run[0].kind == "block"]
    assert blocks == [5, 1, 4, 5, 1, 1, 6, 5, 1, 1, 5]


@pytest.mark.parametrize(("width", "count"), [(144, 133_810_450), (96, 133_143_682)])
def test_parameter_count_of_the_published_network_of_two_symbols(width, count):
    """The embedding of a symbol has 144 channels, so that the first map has 288; the other count is that with 192."""
    net = UNet((32, 32, 2), 4097, 4096, channels=96, embedding_channels=width)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2048), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (4, 6, 3), "multipliers": (1, 1, 1)}, r"unet\.multipliers: 3 levels halve 4 x 6"),
        ({"groups": 5}, r"unet\.groups: 5 do not divide"),
        ({"head_channels": 3}, r"unet\.head_channels: 3 do not divide"),
        ({"remat": "dots"}, r"model\.remat: unknown 'dots'"),
    ],
)
def test_bad_sizes_name_the_field(change, message):
    with refused(message):
        NET.clone(**change).parts()
