"""The transformer of block diffusion: one pass over noisy and clean tokens, and decoding with a cache of blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion.nets.block_masks import BlockCausal, NoisyAndClean
from diffusion.nets.dit import DiT
from tests.weights import randomized

VOCAB, LENGTH, BLOCK, BATCH = 11, 12, 4, 3
FULL = DiT(VOCAB, hidden=16, blocks=2, heads=2, cond_dim=8, dropout=0.0)
NET = FULL.clone(mask=NoisyAndClean(LENGTH, BLOCK))
PARAMS = randomized(lambda key: NET.init(key, jnp.zeros((1, 2 * LENGTH), jnp.int32))["params"], 0.3)
NOISY, CLEAN = jax.random.randint(jax.random.key(1), (2, BATCH, LENGTH), 0, VOCAB)


@partial(jax.jit, static_argnums=0)
def one_pass(net, noisy, clean):
    """Logits of the noisy half."""
    state, positions = jnp.concatenate([noisy, clean], axis=1), jnp.tile(jnp.arange(LENGTH), 2)
    features = net.apply({"params": PARAMS}, state, positions=positions, method="head_input")
    return net.apply({"params": PARAMS}, features[:, :LENGTH], method="logits")


@partial(jax.jit, static_argnums=0)
def by_cache(net, params, noisy, clean):
    """Logits of the noisy blocks, each given the clean ones before it."""

    def block(cache, inputs):
        start, noisy, clean = inputs
        features, _ = net.apply({"params": params}, noisy, start, cache, method="extend")
        logits = net.apply({"params": params}, features, method="logits")
        return net.apply({"params": params}, clean, start, cache, method="extend")[1], logits

    blocks = [tokens.reshape(BATCH, -1, BLOCK).swapaxes(0, 1) for tokens in (noisy, clean)]
    starts = jnp.arange(0, LENGTH, BLOCK)
    return jax.lax.scan(block, net.init_cache(BATCH, LENGTH), (starts, *blocks))[1].swapaxes(0, 1)


def test_cached_logits_equal_those_of_one_pass():
    expected = one_pass(NET, NOISY, CLEAN)
    logits = by_cache(NET.clone(mask=BlockCausal(BLOCK)), PARAMS, NOISY, CLEAN)
    np.testing.assert_allclose(logits.reshape(expected.shape), expected, atol=1e-4)
    assert np.abs(expected).max() > 1, "the comparison must not be of zeros"


def test_one_block_is_the_bidirectional_network():
    actual = one_pass(NET.clone(mask=NoisyAndClean(LENGTH, LENGTH)), NOISY, CLEAN)
    full = jax.jit(FULL.apply)({"params": PARAMS}, NOISY)
    np.testing.assert_allclose(actual, full, atol=1e-5)


@pytest.mark.parametrize("changed", range(3))
def test_a_block_reads_its_noisy_tokens_and_earlier_clean_ones(changed):
    part = slice(changed * BLOCK, (changed + 1) * BLOCK)

    def moved(noisy, clean):
        difference = np.abs(one_pass(NET, noisy, clean) - one_pass(NET, NOISY, CLEAN))
        return difference.max(axis=(0, 2)).reshape(-1, BLOCK).max(axis=1) > 0

    other = (NOISY + 1) % VOCAB
    np.testing.assert_array_equal(moved(NOISY.at[:, part].set(other[:, part]), CLEAN), np.arange(3) == changed)
    np.testing.assert_array_equal(moved(NOISY, CLEAN.at[:, part].set(other[:, part])), np.arange(3) > changed)


def test_a_window_forgets_what_is_far():
    """With a window of two blocks, one layer deep, the third block does not read the first."""
    net = NET.clone(mask=BlockCausal(BLOCK, window=2 * BLOCK), blocks=1)
    params = PARAMS | {"blocks": jax.tree.map(lambda leaf: leaf[:1], PARAMS["blocks"])}
    base, far, near = (
        by_cache(net, params, NOISY, clean)[:, 2]
        for clean in (CLEAN, CLEAN.at[:, :BLOCK].set(0), CLEAN.at[:, BLOCK : 2 * BLOCK].set(0))
    )
    np.testing.assert_array_equal(base, far)
    assert np.abs(base - near).max() > 1e-3
