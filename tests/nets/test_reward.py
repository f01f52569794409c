"""The reward network: independence of examples, effects of prompt, position and image, and the modulated block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.reward import ModulatedBlock, RewardNet
from tests.small_unets import compiled
from tests.weights import randomized

WORDS, LENGTH, BATCH = 5, 3, 4
NET = RewardNet(WORDS, LENGTH, stem=4, channels=8, blocks=2, hidden=12, word_width=3, groups=2)
RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(-1, 1, (BATCH, 8, 6, 3)), jnp.float32)
PROMPT = jnp.asarray(RNG.integers(0, WORDS, (BATCH, LENGTH)), jnp.int32)

apply = compiled(NET.apply)


@pytest.fixture(scope="module")
def params():
    return randomized(lambda key: NET.init(key, IMAGE, PROMPT), 0.4)


def test_reward_does_not_depend_on_other_examples(params):
    first = apply(params, IMAGE, PROMPT)
    assert first.shape == (BATCH,) and first.dtype == jnp.float32
    for moved in (
        apply(params, IMAGE.at[1, 3, 2].add(0.5), PROMPT),
        apply(params, IMAGE, PROMPT.at[1, 2].set((PROMPT[1, 2] + 1) % WORDS)),
    ):
        difference = np.abs(moved - first)
        assert difference[1] > 1e-3 and (difference[[0, 2, 3]] < 1e-5).all()
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(apply(params, IMAGE[order], PROMPT[order]), first[order], atol=1e-5)


def test_order_of_words_and_positions_of_objects_have_an_effect(params):
    first = apply(params, IMAGE, PROMPT.at[:].set(jnp.array([[0, 1, 2]])))
    assert np.abs(apply(params, IMAGE, PROMPT.at[:].set(jnp.array([[2, 1, 0]]))) - first).min() > 1e-3
    assert np.abs(apply(params, IMAGE[:, :, ::-1], PROMPT) - apply(params, IMAGE, PROMPT)).min() > 1e-3
    # The object is twice as far from the borders as the receptive field, so that only coordinates show its position.
    net = NET.clone(blocks=1)
    wide = randomized(lambda key: net.init(key, jnp.zeros((2, 8, 48, 3)), PROMPT[:2]), 0.4)
    thing = jnp.zeros((2, 8, 48, 3)).at[0, 2:5, 14:17].set(1.0).at[1, 2:5, 30:33].set(1.0)
    rewards = compiled(net.apply)(wide, thing, PROMPT[:1].repeat(2, axis=0))
    assert np.abs(rewards[0] - rewards[1]) > 1e-3


def test_convolutions_preserve_the_variance_at_initialization():
    image = jnp.zeros((1, 4, 4, 3))
    params = compiled(RewardNet(WORDS, LENGTH, channels=32, groups=4).init)(jax.random.key(0), image, PROMPT[:1])
    for leaves, fan in ((params["params"]["conv_in"], 75), (params["params"]["blocks_1"]["conv"], 288)):
        assert abs(np.std(leaves["kernel"]) * fan**0.5 - 1) < 0.1 and (leaves["bias"] == 0).all()


def test_gradient_with_respect_to_the_image(params):
    def total(x):
        return NET.apply(params, x, PROMPT).sum()

    gradient = compiled(jax.grad(total))(IMAGE)
    assert np.isfinite(gradient).all() and (np.abs(gradient).max((1, 2, 3)) > 1e-3).all()
    direction = jnp.asarray(RNG.normal(size=IMAGE.shape), jnp.float32)
    step = 1e-3
    above, below = (apply(params, IMAGE + sign * step * direction, PROMPT) for sign in (1, -1))
    slopes = jnp.sum(gradient * direction, axis=(1, 2, 3))
    np.testing.assert_allclose((above - below) / (2 * step), slopes, rtol=0.05, atol=0.05)


def test_low_precision_is_close_to_float32(params):
    exact = apply(params, IMAGE, PROMPT)
    low = compiled(NET.clone(dtype="bfloat16").apply)(params, IMAGE, PROMPT)
    assert low.dtype == jnp.float32
    assert 1e-6 < np.abs(low - exact).max() < 0.1 * np.abs(exact).max()


def test_block_agrees_with_its_formula():
    """FiLM with coordinates, in numpy."""
    rng = np.random.default_rng(2)
    x, text = rng.normal(size=(2, 3, 4, 6)), rng.normal(size=(2, 5))
    block = ModulatedBlock(2, "float32")
    inputs = jnp.asarray(x, jnp.float32), jnp.asarray(text, jnp.float32)
    params = randomized(lambda key: block.init(key, *inputs), 0.4)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])

    def silu(x):
        return x / (1 + np.exp(-x))

    rows, columns = np.meshgrid([-1, 0, 1], np.linspace(-1, 1, 4), indexing="ij")
    places = np.broadcast_to(np.stack([rows, columns], axis=-1), (2, 3, 4, 2))
    mixed = silu(np.concatenate([x, places], axis=-1) @ p["mix"]["kernel"][0, 0] + p["mix"]["bias"])
    padded = np.pad(mixed, ((0, 0), (1, 1), (1, 1), (0, 0)))
    h = p["conv"]["bias"] + sum(
        padded[:, i : i + 3, j : j + 4] @ p["conv"]["kernel"][i, j] for i in range(3) for j in range(3)
    )
    grouped = h.reshape(2, 12, 2, 3)
    grouped = (grouped - grouped.mean((1, 3), keepdims=True)) / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    h = grouped.reshape(h.shape) * p["norm"]["scale"] + p["norm"]["bias"]
    scale, shift = np.split((text @ p["modulation"]["kernel"] + p["modulation"]["bias"])[:, None, None], 2, axis=-1)
    np.testing.assert_allclose(
        compiled(block.apply)(params, *inputs), mixed + silu(h * (1 + scale) + shift), rtol=1e-4, atol=1e-5
    )
