"""The reward network: independence of examples, effects of prompt, position and image, and the modulated block."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion.nets.reward import Convolution, ModulatedBlock, RewardNet
from tests.weights import randomized

WORDS, LENGTH, BATCH = 5, 3, 4
NET = RewardNet(WORDS, LENGTH, stem=4, channels=8, blocks=2, hidden=12, word_width=3, groups=2)
RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.uniform(-1, 1, (BATCH, 8, 6, 3)), jnp.float32)
PROMPT = jnp.asarray(RNG.integers(0, WORDS, (BATCH, LENGTH)), jnp.int32)

PARAMS = randomized(lambda key: NET.init(key, IMAGE, PROMPT), 0.4)
apply = jax.jit(NET.apply)


def test_reward_of_an_example_reads_its_image_and_the_order_of_its_words():
    first = apply(PARAMS, IMAGE, PROMPT)
    assert first.shape == (BATCH,) and first.dtype == jnp.float32
    words = jnp.array([0, 1, 2])
    ordered = PROMPT.at[1].set(words)
    for before, after in (
        ((IMAGE, PROMPT), (IMAGE.at[1, 3, 2].add(0.5), PROMPT)),
        ((IMAGE, PROMPT), (IMAGE.at[1].set(IMAGE[1, :, ::-1]), PROMPT)),
        ((IMAGE, ordered), (IMAGE, ordered.at[1].set(words[::-1]))),
    ):
        difference = np.abs(apply(PARAMS, *before) - apply(PARAMS, *after))
        assert difference[1] > 1e-3 and (difference[[0, 2, 3]] < 1e-5).all()
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(apply(PARAMS, IMAGE[order], PROMPT[order]), first[order], atol=1e-5)


def test_gradient_with_respect_to_the_image():
    gradient = jax.jit(jax.grad(lambda image: NET.apply(PARAMS, image, PROMPT).sum()))(IMAGE)
    assert np.isfinite(gradient).all() and (np.abs(gradient).max((1, 2, 3)) > 1e-3).all()
    direction = jnp.asarray(np.random.default_rng(1).normal(size=IMAGE.shape), jnp.float32)
    above, below = (apply(PARAMS, IMAGE + sign * 1e-3 * direction, PROMPT) for sign in (1, -1))
    slopes = jnp.sum(gradient * direction, axis=(1, 2, 3))
    np.testing.assert_allclose((above - below) / 2e-3, slopes, rtol=0.05, atol=0.05)


def test_coordinates_show_the_positions_of_objects():
    """The object is twice as far from the borders as the receptive field."""
    net = NET.clone(blocks=1)
    params = randomized(lambda key: net.init(key, jnp.zeros((2, 8, 48, 3)), PROMPT[:2]), 0.4)
    thing = jnp.zeros((2, 8, 48, 3)).at[0, 2:5, 14:17].set(1.0).at[1, 2:5, 30:33].set(1.0)
    rewards = jax.jit(net.apply)(params, thing, PROMPT[:1].repeat(2, axis=0))
    assert np.abs(rewards[0] - rewards[1]) > 1e-3


def test_convolutions_preserve_the_variance_at_initialization():
    convolution = Convolution(32, 3)
    params = convolution.init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]
    assert abs(np.std(params["kernel"]) * 288**0.5 - 1) < 0.1 and not params["bias"].any()


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
    expected = mixed + silu(h * (1 + scale) + shift)
    np.testing.assert_allclose(jax.jit(block.apply)(params, *inputs), expected, rtol=1e-4, atol=1e-5)
